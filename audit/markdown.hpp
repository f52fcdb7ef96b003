#pragma once

// Text in GitHub's Markdown.

#include <string>
#include <string_view>
#include <vector>

#include "audit/report.hpp"

namespace proviso::audit::markdown {

/// A text as it stands, whatever it says: no markup, no link, no mention of a person, and one line of a table.
std::string plain(std::string_view text);
/// The same in the letters of code, where nobody is called and no number is taken for an issue's.
std::string code(std::string_view text);

std::string row(const std::vector<std::string>& cells);
std::string header(const std::vector<std::string>& titles);  ///< of a table, with the line under it
/// The summary is a line of HTML, in which nothing above is read: `summary_code` is its way to write a text.
std::string fold(const std::string& summary, const std::string& content);
std::string summary_code(std::string_view text);
std::string signed_name(Status status);  ///< "❌ fail"

}  // namespace proviso::audit::markdown

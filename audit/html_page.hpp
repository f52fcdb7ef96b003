#pragma once

// The parts that pages are made of. What is called content is markup already; all other text is escaped here.

#include <string>
#include <string_view>
#include <vector>

namespace proviso::audit {

std::string of_class(std::string_view name);
std::string code(std::string_view text);
std::string paragraph(std::string_view text);  ///< nothing where it is empty

/// A term and what it is, both as markup; nothing where the second is empty.
std::string fact(std::string_view term, const std::string& what);
std::string facts(const std::string& content);

struct PageColumn {
  std::string title;
  const char* kind = "";  ///< "number" or "text", which may break anywhere
};
/// Cells are markup. Wide tables scroll by themselves, with the keyboard too. Nothing where there is no row.
std::string table(const std::string& caption, const std::vector<PageColumn>& columns,
                  const std::vector<std::vector<std::string>>& rows);

/// What opens and closes.
std::string fold(const std::string& kind, bool open, const std::string& summary, const std::string& content);
/// Nothing where it has no content.
std::string section(const std::string& id, const std::string& title, const std::string& content);

/// A whole file that needs nothing else, no script either.
std::string page(const std::string& title, const std::string& body);

}  // namespace proviso::audit

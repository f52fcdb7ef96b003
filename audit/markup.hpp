#pragma once

// Text in HTML and XML.

#include <string>
#include <string_view>

namespace proviso::audit {

/// Between tags or in a quoted attribute. Control characters and direction marks are shown as escapes: XML 1.0 has no
/// way to write most of them, and on a page they could make a text look like another.
std::string markup(std::string_view text);

/// The same of a text of several lines, which stay lines.
std::string markup_lines(std::string_view text);

/// ` name="value"`, the value escaped.
std::string attribute(std::string_view name, std::string_view value);

/// `<name attributes>content</name>`; the content is markup already, the attributes come from `attribute`.
std::string element(std::string_view name, std::string_view attributes, std::string_view content);

}  // namespace proviso::audit

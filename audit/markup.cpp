#include "audit/markup.hpp"

#include <algorithm>

#include "audit/text_page.hpp"

namespace proviso::audit {

std::string markup(std::string_view text) {
  std::string result;
  for (const char c : harmless(text)) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string markup_lines(std::string_view text) {
  std::string result;
  for (std::size_t end = 0; !text.empty(); text.remove_prefix(end)) {
    end = std::min(text.find('\n'), text.size());
    result += markup(text.substr(0, end));
    if (end < text.size()) result += text[end++];
  }
  return result;
}

std::string attribute(std::string_view name, std::string_view value) {
  return " " + std::string(name) + "=\"" + markup(value) + "\"";
}

std::string element(std::string_view name, std::string_view attributes, std::string_view content) {
  const std::string tag(name);
  return "<" + tag + std::string(attributes) + ">" + std::string(content) + "</" + tag + ">";
}

}  // namespace proviso::audit

#pragma once

// What the characters of a literal mean. Offsets in diagnostics are those of the source.

#include <string>
#include <string_view>
#include <vector>

#include "dsl/ast.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

/// `literal` is the source's text with its delimiters, `span` where it stands. What cannot be decoded is
/// reported and left out of the value.
ast::String decode_string(std::string_view literal, Span span, std::vector<Diagnostic>& diagnostics);
ast::Regex decode_regex(std::string_view literal, Span span, std::vector<Diagnostic>& diagnostics);
ast::Number decode_number(std::string_view literal, Span span, std::vector<Diagnostic>& diagnostics);

/// A template of `each` (slots have names) or of `fact` (they have none).
enum class Slots { named, bare };
ast::Template decode_template(std::string_view literal, Span span, Slots slots, std::vector<Diagnostic>& diagnostics);

/// The literals that decode to these values, in the canonical spelling.
std::string encode_string(std::string_view value);
std::string encode_regex(const ast::Regex& regex);
std::string encode_template(const ast::Template& text);

inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// U+202E and its like, which reorder what is seen.
bool is_direction_mark(char32_t code_point);

/// The code point at the front of `text`, which is not empty and valid UTF-8, and its length in bytes.
struct CodePoint {
  char32_t value = 0;
  std::size_t length = 1;
};
CodePoint front_code_point(std::string_view text);
void append_utf8(std::string& text, char32_t code_point);

}  // namespace proviso::dsl

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace proviso::model {

/// Offset of the first byte that starts no well-formed UTF-8 sequence, or `npos`.
std::size_t find_invalid_utf8(std::string_view text);

/// The code point at `offset` of well-formed text; moves `offset` behind it.
char32_t next_code_point(std::string_view text, std::size_t& offset);

void append_utf8(std::string& out, char32_t code_point);

/// Puts one U+FFFD in place of each maximal ill-formed part, as the Unicode standard recommends.
std::string replace_invalid_utf8(std::string_view bytes);

bool is_ascii(std::string_view text);

}  // namespace proviso::model

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace proviso::model {

/// GPT-2's alphabet: one printable character for each byte (0x20 is "Ġ"), so that a vocabulary of text can
/// hold any bytes.
char32_t character_of_byte(std::uint8_t byte);
std::string to_byte_alphabet(std::string_view bytes);
/// Nothing where `text` has a character beyond the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace proviso::model

#include "runtime/tokenizer/byte_alphabet.hpp"

#include <array>

#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

// Bytes that print stand for themselves; the others take U+0100, U+0101, … in their order.
struct Alphabet {
  std::array<char32_t, 256> character_of{};
  std::array<std::int16_t, 324> byte_of{};

  Alphabet() {
    byte_of.fill(-1);
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      character_of[byte] = prints ? byte : next++;
      byte_of[character_of[byte]] = static_cast<std::int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

char32_t character_of_byte(std::uint8_t byte) { return alphabet().character_of[byte]; }

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char byte : bytes) append_utf8(text, character_of_byte(static_cast<std::uint8_t>(byte)));
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  for (std::size_t offset = 0; offset < text.size();) {
    const char32_t c = next_code_point(text, offset);
    if (c >= alphabet().byte_of.size() || alphabet().byte_of[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet().byte_of[c]));
  }
  return bytes;
}

}  // namespace proviso::model

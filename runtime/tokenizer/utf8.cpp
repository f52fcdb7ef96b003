#include "runtime/tokenizer/utf8.hpp"

#include <cstdint>
#include <cstring>

namespace proviso::model {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Sequence {
  std::size_t length;  // bytes read: a whole sequence, or the maximal part of a broken one
  bool valid;
};

// The sequence at `offset`, by table 3-7 of the Unicode standard: the second byte's range depends on the first.
Sequence sequence_at(std::string_view text, std::size_t offset) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[offset + i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const std::uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const std::uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (offset + i == text.size()) return {i, false};
    const bool continues = i == 1 ? byte(1) >= low && byte(1) <= high : (byte(i) & 0xC0) == 0x80;
    if (!continues) return {i, false};
  }
  return {length, true};
}

std::size_t ascii_prefix(std::string_view text, std::size_t offset) {
  for (; offset + 8 <= text.size(); offset += 8) {
    std::uint64_t word;
    std::memcpy(&word, text.data() + offset, 8);
    if (word & 0x8080808080808080u) break;
  }
  while (offset < text.size() && static_cast<std::uint8_t>(text[offset]) < 0x80) ++offset;
  return offset;
}

}  // namespace

std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t offset = ascii_prefix(text, 0); offset < text.size(); offset = ascii_prefix(text, offset)) {
    const Sequence sequence = sequence_at(text, offset);
    if (!sequence.valid) return offset;
    offset += sequence.length;
  }
  return std::string_view::npos;
}

char32_t next_code_point(std::string_view text, std::size_t& offset) {
  const auto byte = [&] { return static_cast<std::uint8_t>(text[offset++]); };
  const std::uint8_t lead = byte();
  if (lead < 0x80) return lead;
  const int following = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  char32_t code_point = lead & (0x3F >> following);
  for (int i = 0; i < following; ++i) code_point = code_point << 6 | (byte() & 0x3F);
  return code_point;
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  const auto put_tail = [&](int shift) { put(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6), put_tail(0);
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12), put_tail(6), put_tail(0);
  } else {
    put(0xF0 | code_point >> 18), put_tail(12), put_tail(6), put_tail(0);
  }
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (std::size_t offset = 0; offset < bytes.size();) {
    const Sequence sequence = sequence_at(bytes, offset);
    out += sequence.valid ? bytes.substr(offset, sequence.length) : kReplacement;
    offset += sequence.length;
  }
  return out;
}

bool is_ascii(std::string_view text) { return ascii_prefix(text, 0) == text.size(); }

}  // namespace proviso::model

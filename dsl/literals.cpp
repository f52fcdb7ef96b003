#include "dsl/literals.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>

namespace proviso::dsl {
namespace {

std::optional<char32_t> hex4(std::string_view text) {
  std::uint32_t value = 0;
  if (text.size() < 4) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + 4, value, 16);
  if (error != std::errc() || end != text.data() + 4) return std::nullopt;
  return value;
}

bool is_high_surrogate(char32_t c) { return c >= 0xD800 && c <= 0xDBFF; }
bool is_low_surrogate(char32_t c) { return c >= 0xDC00 && c <= 0xDFFF; }

std::optional<char> simple_escape(char letter) {
  switch (letter) {
    case '"':
    case '\\':
    case '/':
      return letter;
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
  }
  return std::nullopt;
}

/// A decoded string, and for each of its bytes the offset in the source that it came from.
struct Decoded {
  std::string value;
  std::vector<std::uint32_t> offsets;
};

Decoded decode(std::string_view literal, Span span, std::vector<Diagnostic>& diagnostics) {
  Decoded out;
  const auto emit = [&](char32_t c, std::size_t at) {
    append_utf8(out.value, c);
    out.offsets.resize(out.value.size(), static_cast<std::uint32_t>(span.begin + at));
  };
  const auto refuse = [&](std::size_t at, std::size_t length, std::string message, std::string help) {
    const auto begin = static_cast<std::uint32_t>(span.begin + at);
    const Span place{span.source, begin, static_cast<std::uint32_t>(begin + length)};
    diagnostics.push_back(make_diagnostic(Code::invalid_string, place, std::move(message), {std::move(help)}));
  };

  const std::size_t end = literal.size() - 1;  // the closing quote
  for (std::size_t i = 1; i < end;) {
    const CodePoint c = front_code_point(literal.substr(i));
    if (c.value != '\\') {
      if (c.value < 0x20 || c.value == 0x7F) {
        char escape[8];
        std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c.value));
        refuse(i, 1, "a control character stands in a string",
               std::string("write it as `") + (c.value == '\t' ? "\\t" : escape) + "`");
      }
      emit(c.value, i);
      i += c.length;
      continue;
    }
    const char letter = literal[i + 1];
    if (const auto simple = simple_escape(letter)) {
      emit(static_cast<unsigned char>(*simple), i);
      i += 2;
    } else if (letter == 'u') {
      const auto first = hex4(literal.substr(i + 2, end - i - 2));
      if (!first) {
        refuse(i, 2, "`\\u` needs four hexadecimal digits", "for example `\\u00e9`");
        i += 2;
      } else if (is_high_surrogate(*first)) {
        const std::string_view rest = literal.substr(i + 6, end - i - 6);
        const auto second = rest.starts_with("\\u") ? hex4(rest.substr(2)) : std::nullopt;
        if (second && is_low_surrogate(*second)) {
          emit(0x10000 + ((*first - 0xD800) << 10) + (*second - 0xDC00), i);
          i += 12;
        } else {
          refuse(i, 6, "half of a surrogate pair stands alone", "write both halves, or the character itself");
          i += 6;
        }
      } else if (is_low_surrogate(*first)) {
        refuse(i, 6, "half of a surrogate pair stands alone", "write both halves, or the character itself");
        i += 6;
      } else {
        emit(*first, i);
        i += 6;
      }
    } else {
      const std::size_t length = front_code_point(literal.substr(i + 1)).length;
      refuse(i, 1 + length, "`" + std::string(literal.substr(i, 1 + length)) + "` is no escape of a string",
             "the escapes are \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\uXXXX; a backslash itself is `\\\\`");
      i += 1 + length;
    }
  }
  return out;
}

bool is_identifier(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  if (text.empty() || !letter(text.front())) return false;
  for (const char c : text) {
    if (!letter(c) && !(c >= '0' && c <= '9')) return false;
  }
  return true;
}

}  // namespace

void append_utf8(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3F));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

CodePoint front_code_point(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {((lead & 0x1F) << 6) | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {((lead & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F), 3};
  return {((lead & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) | (byte(3) & 0x3F), 4};
}

bool is_direction_mark(char32_t c) {
  return c == 0x061C || c == 0x200E || c == 0x200F || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

ast::String decode_string(std::string_view literal, Span span, std::vector<Diagnostic>& diagnostics) {
  return {decode(literal, span, diagnostics).value, span};
}

ast::Regex decode_regex(std::string_view literal, Span span, std::vector<Diagnostic>& diagnostics) {
  ast::Regex regex{"", "", span};
  std::size_t i = 1;
  for (; literal[i] != '/'; ++i) {
    if (literal[i] == '\\') {
      ++i;
      if (literal[i] != '/') regex.pattern += '\\';
    }
    regex.pattern += literal[i];
  }
  const std::string_view flags = literal.substr(i + 1);
  const auto refuse = [&](Span place, std::string message, std::string help) {
    diagnostics.push_back(make_diagnostic(Code::invalid_regex_literal, place, std::move(message), {std::move(help)}));
  };
  if (regex.pattern.empty())
    refuse(span, "this regular expression is empty and matches everything", "write what it should find");
  for (std::size_t f = 0; f < flags.size(); ++f) {
    const auto at = static_cast<std::uint32_t>(span.begin + i + 1 + f);
    const Span place{span.source, at, at + 1};
    if (std::string_view("ims").find(flags[f]) == std::string_view::npos) {
      refuse(place, std::string("`") + flags[f] + "` is no flag of a regular expression",
             "the flags are i, m and s; `/` inside is written `\\/`");
      break;
    }
    if (flags.substr(0, f).find(flags[f]) != std::string_view::npos) {
      refuse(place, std::string("the flag `") + flags[f] + "` stands twice", "write it once");
    }
  }
  for (const char flag : {'i', 'm', 's'}) {
    if (flags.find(flag) != std::string_view::npos) regex.flags += flag;
  }
  return regex;
}

ast::Number decode_number(std::string_view literal, Span span, std::vector<Diagnostic>& diagnostics) {
  ast::Number number{0, literal.ends_with('%'), std::string(literal), span};
  std::string digits(number.percent ? literal.substr(0, literal.size() - 1) : literal);
  // Shifting the exponent rounds once: 99.9% is 0.999, where 99.9 / 100 need not be.
  const bool shifted = number.percent && digits.find('e') == std::string::npos;
  if (shifted) digits += "e-2";
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number.value);
  if (error == std::errc::result_out_of_range) {
    diagnostics.push_back(make_diagnostic(Code::invalid_number, span,
                                          "`" + std::string(literal) + "` is beyond what a number can hold",
                                          {"numbers are 64-bit floating point: at most about 1.8e308"}));
    number.value = 0;
  }
  if (number.percent && !shifted) number.value /= 100;
  return number;
}

ast::Template decode_template(std::string_view literal, Span span, Slots slots, std::vector<Diagnostic>& diagnostics) {
  const Decoded decoded = decode(literal, span, diagnostics);
  const std::string& text = decoded.value;
  const auto place = [&](std::size_t begin, std::size_t end) {
    const std::uint32_t last = end < text.size() ? decoded.offsets[end] : span.end - 1;
    return Span{span.source, decoded.offsets[begin], last};
  };
  const auto refuse = [&](Span where, std::string message) {
    std::vector<std::string> help = {slots == Slots::named
                                         ? "a slot is `{name}`; a brace itself is `{{` or `}}`"
                                         : "the subject's place is `{}`; a brace itself is `{{` or `}}`"};
    diagnostics.push_back(make_diagnostic(Code::template_slot, where, std::move(message), std::move(help)));
  };

  ast::Template out{{}, span};
  std::string part;
  const auto flush = [&] {
    if (!part.empty()) out.parts.emplace_back(std::move(part));
    part.clear();
  };
  std::size_t slot_count = 0;
  const std::size_t before = diagnostics.size();
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
      part += c;
      ++i;
    } else if (c == '}') {
      refuse(place(i, i + 1), "`}` closes no slot");
    } else if (c == '{') {
      const std::size_t close = text.find_first_of("{}", i + 1);
      if (close == std::string::npos || text[close] == '{') {
        refuse(place(i, i + 1), "`{` is not closed");
        continue;
      }
      const std::string name = text.substr(i + 1, close - i - 1);
      const Span where = place(i, close + 1);
      if (slots == Slots::named ? !is_identifier(name) : !name.empty()) {
        refuse(where, "`{" + name + "}` is no slot");
      } else {
        flush();
        out.parts.emplace_back(ast::Slot{{name, where}});
        ++slot_count;
      }
      i = close;
    } else {
      part += c;
    }
  }
  flush();
  if (slots == Slots::bare && slot_count != 1 && diagnostics.size() == before) {
    refuse(span, slot_count == 0 ? "the template has no `{}` for the subject" : "the template has more than one `{}`");
  }
  return out;
}

std::string encode_string(std::string_view value) {
  std::string out = "\"";
  while (!value.empty()) {
    const auto [c, length] = front_code_point(value);
    const std::string_view bytes = value.substr(0, length);
    value.remove_prefix(length);
    static constexpr std::string_view kLetters = "\"\"\\\\\bb\ff\nn\rr\tt";
    const std::size_t at = length == 1 ? kLetters.find(static_cast<char>(c)) : std::string_view::npos;
    if (c == 0 || c == 0x7F || is_direction_mark(c) || (c < 0x20 && at == std::string_view::npos)) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else if (c == '"' || c == '\\' || c < 0x20) {
      out += '\\';
      out += kLetters[at + 1];
    } else {
      out += bytes;
    }
  }
  return out + '"';
}

std::string encode_regex(const ast::Regex& regex) {
  std::string out = "/";
  for (std::size_t i = 0; i < regex.pattern.size(); ++i) {
    if (regex.pattern[i] == '\\') {
      out += regex.pattern[i++];
    } else if (regex.pattern[i] == '/') {
      out += '\\';
    }
    out += regex.pattern[i];
  }
  return out + "/" + regex.flags;
}

std::string encode_template(const ast::Template& text) {
  std::string value;
  for (const auto& part : text.parts) {
    if (const auto* slot = std::get_if<ast::Slot>(&part)) {
      value += "{" + slot->name.text + "}";
    } else {
      for (const char c : std::get<std::string>(part)) value.append(c == '{' || c == '}' ? 2 : 1, c);
    }
  }
  return encode_string(value);
}

}  // namespace proviso::dsl

namespace proviso::dsl::ast {

std::optional<std::int64_t> Number::integer() const {
  std::int64_t whole = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return whole;
}

std::string Regex::re2() const { return flags.empty() ? pattern : "(?" + flags + ")" + pattern; }

}  // namespace proviso::dsl::ast

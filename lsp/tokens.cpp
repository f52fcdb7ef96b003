#include "lsp/tokens.hpp"

#include <algorithm>
#include <cctype>

#include "dsl/vocabulary.hpp"

namespace proviso::lsp {
namespace {

bool is_word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/// One past a string or regular expression that opens at `at`.
std::size_t literal_end(std::string_view text, std::size_t at, bool& closed) {
  const char quote = text[at];
  std::size_t end = at + 1;
  for (; end < text.size() && text[end] != '\n'; ++end) {
    if (text[end] == quote) {
      closed = true;
      return end + 1;
    }
    if (text[end] == '\\' && end + 1 < text.size() && text[end + 1] != '\n') ++end;
  }
  closed = false;
  return end;
}

std::size_t number_end(std::string_view text, std::size_t at) {
  const auto digits = [&] {
    while (at < text.size() && is_digit(text[at])) ++at;
  };
  const auto digit_at = [&](std::size_t i) { return i < text.size() && is_digit(text[i]); };
  digits();
  if (at < text.size() && text[at] == '.' && digit_at(at + 1)) {
    ++at;
    digits();
  }
  if (at < text.size() && text[at] == 'e' && (digit_at(at + 1) || (digit_at(at + 2) && text[at + 1] == '-'))) {
    at += 2;
    digits();
  }
  if (at < text.size() && text[at] == '%') ++at;
  return at;
}

std::size_t symbol_end(std::string_view text, std::size_t at) {
  for (const std::string_view two : {"->", "<=", ">=", "==", "!=", ".."}) {
    if (text.substr(at).starts_with(two)) return at + 2;
  }
  std::size_t end = at + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return end;
}

}  // namespace

std::vector<Token> tokens(std::string_view text) {
  std::vector<Token> found;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (is_blank(c)) {
      ++at;
      continue;
    }
    Token token;
    std::size_t end = at;
    if (c == '#') {
      token.kind = Token::Kind::comment;
      end = std::min(text.find('\n', at), text.size());
    } else if (c == '"' || c == '/') {
      token.kind = c == '"' ? Token::Kind::string : Token::Kind::regex;
      end = literal_end(text, at, token.closed);
      while (c == '/' && token.closed && end < text.size() && is_word_char(text[end])) ++end;
    } else if (is_digit(c)) {
      token.kind = Token::Kind::number;
      end = number_end(text, at);
    } else if (is_word_char(c)) {
      token.kind = Token::Kind::word;
      while (end < text.size() && is_word_char(text[end])) ++end;
    } else {
      end = symbol_end(text, at);
    }
    token.begin = static_cast<std::uint32_t>(at);
    token.end = static_cast<std::uint32_t>(end);
    found.push_back(token);
    at = end;
  }
  return found;
}

bool opens_declaration(std::string_view text, const Token& token) {
  return token.kind == Token::Kind::word && (token.begin == 0 || text[token.begin - 1] == '\n') &&
         dsl::find_term(dsl::TermKind::declaration, token.of(text)) != nullptr;
}

}  // namespace proviso::lsp

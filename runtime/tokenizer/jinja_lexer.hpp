#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace proviso::model::jinja {

enum class TokenType {
  text,
  output_begin,
  output_end,
  statement_begin,
  statement_end,
  name,
  number,
  string,
  symbol,
  end
};

struct Token {
  TokenType type;
  std::string text;  ///< a string's value, unescaped
};

/// Splits a template, with the white space control of `trim_blocks` and `lstrip_blocks` applied.
std::vector<Token> tokenize(std::string_view source);

}  // namespace proviso::model::jinja

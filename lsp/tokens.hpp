#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace proviso::lsp {

/// A token of a text that need not be right: what an editor colours and completes while a sentence is being written.
struct Token {
  enum class Kind { comment, string, regex, number, word, symbol };
  Kind kind = Kind::symbol;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  bool closed = true;  ///< of a string or regular expression: its last delimiter stands on the line

  std::string_view of(std::string_view text) const { return text.substr(begin, end - begin); }
};

std::vector<Token> tokens(std::string_view text);

/// Whether a token opens a declaration: one of its words in column 1, where reading resumes after an error.
bool opens_declaration(std::string_view text, const Token& token);

}  // namespace proviso::lsp

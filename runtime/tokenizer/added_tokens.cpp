#include "runtime/tokenizer/added_tokens.hpp"

#include <algorithm>

#include "runtime/tokenizer/unicode.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

bool continues_sequence(char byte) { return (static_cast<std::uint8_t>(byte) & 0xC0) == 0x80; }

// Where the last code point before `end` begins.
std::size_t previous_code_point(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && continues_sequence(text[end]));
  return end;
}

bool is_word_at(std::string_view text, std::size_t offset) {
  return word_characters().contains(next_code_point(text, offset));
}

std::size_t skip_white_space(std::string_view text, std::size_t offset) {
  for (std::size_t next = offset; next < text.size() && white_space().contains(next_code_point(text, next));) {
    offset = next;
  }
  return offset;
}

std::size_t skip_white_space_back(std::string_view text, std::size_t end) {
  while (end > 0) {
    const std::size_t begin = previous_code_point(text, end);
    std::size_t offset = begin;
    if (!white_space().contains(next_code_point(text, offset))) break;
    end = begin;
  }
  return end;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) { return a.text < b.text; });
  for (const AddedToken& token : tokens_) first_bytes_.set(static_cast<std::uint8_t>(token.text[0]));
}

// Narrows the tokens that agree with `text` byte by byte; a token that ends there is the longest so far.
const AddedToken* AddedTokenFinder::longest_at(std::string_view text) const {
  const AddedToken* longest = nullptr;
  auto begin = tokens_.begin(), end = tokens_.end();
  for (std::size_t depth = 0; begin != end; ++depth) {
    if (begin->text.size() == depth) longest = &*begin++;
    if (depth == text.size()) break;
    const auto byte_at = [depth](const AddedToken& token) { return static_cast<std::uint8_t>(token.text[depth]); };
    const auto byte = static_cast<std::uint8_t>(text[depth]);
    begin = std::partition_point(begin, end, [&](const AddedToken& token) { return byte_at(token) < byte; });
    end = std::partition_point(begin, end, [&](const AddedToken& token) { return byte_at(token) == byte; });
  }
  return longest;
}

std::vector<AddedTokenFinder::Part> AddedTokenFinder::split(std::string_view text) const {
  std::vector<Part> parts;
  std::size_t end = 0;  // of the last token, with the white space that it took
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token = first_bytes_[static_cast<std::uint8_t>(text[at])] ? longest_at(text.substr(at)) : nullptr;
    if (!token) {
      ++at;
      continue;
    }
    std::size_t begin = at, stop = at + token->text.size();
    at = stop;
    if (token->single_word && ((begin > 0 && is_word_at(text, previous_code_point(text, begin))) ||
                               (stop < text.size() && is_word_at(text, stop)))) {
      continue;
    }
    if (token->lstrip) begin = std::max(skip_white_space_back(text, begin), end);
    if (token->rstrip) stop = skip_white_space(text, stop);
    if (end < begin) parts.push_back({text.substr(end, begin - end), std::nullopt});
    parts.push_back({text.substr(begin, stop - begin), token->id});
    end = stop;
  }
  if (end < text.size()) parts.push_back({text.substr(end), std::nullopt});
  return parts;
}

}  // namespace proviso::model

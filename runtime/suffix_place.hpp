#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/encode_prompt.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::runtime {

/// Where tokens after a prompt's text stand among all that the model is given: at the end, or before what the chat
/// template puts after the user's turn. A suffix is one only where the text that its tokens make is read as these
/// tokens again, and those before and after it as before: an attacker has nothing but text.
class SuffixPlace {
 public:
  /// `text` as written: with `chat`, the user's turn. Throws `InputError` where the template does not show it.
  SuffixPlace(const model::Tokenizer& tokenizer, std::optional<dsl::Chat> chat, std::string text);

  /// The prompt with the suffix; nothing where that is no suffix.
  std::optional<EncodedPrompt> with(std::span<const std::int64_t> suffix) const;
  /// The prompt as written and its suffix, before any chat template.
  std::string text_with(std::span<const std::int64_t> suffix) const;
  /// The position of a suffix' first token.
  std::int64_t begin() const { return static_cast<std::int64_t>(before_.size()); }

  /// `count` tokens, drawn one after another so that each beginning is a suffix; nothing where none is found.
  std::optional<std::vector<std::int64_t>> draw(std::int64_t count, std::uint64_t seed) const;

 private:
  const model::Tokenizer& tokenizer_;
  std::optional<dsl::Chat> chat_;
  std::string text_;
  std::vector<std::int64_t> before_, after_;
};

/// Whether people can write a token: characters that are whole and no controls, and no token of the tokenizer's own.
bool is_writable(const model::Tokenizer& tokenizer, std::int64_t token);

}  // namespace proviso::runtime

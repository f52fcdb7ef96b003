#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::runtime {

/// What the model is given of a prompt: its text, through the chat template where asked, and its tokens.
struct EncodedPrompt {
  std::string text;
  std::vector<std::int64_t> tokens;
};

/// `text` is as written: with `chat`, the user's turn. Throws `InputError` where the model has no chat template, and
/// for what is not UTF-8.
EncodedPrompt encode_prompt(const model::Tokenizer& tokenizer, const std::optional<dsl::Chat>& chat,
                            const std::string& text);

}  // namespace proviso::runtime

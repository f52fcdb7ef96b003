#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::editing {

/// A prompt that names a subject, as tokens.
struct SubjectPrompt {
  std::vector<std::int64_t> tokens;
  std::int64_t subject_last = 0;  ///< index of the token that holds the subject's last byte
};

/// Tokens of `before` + `subject` + `after` as one text. Where a token reaches over the subject's end, it is
/// the subject's last.
SubjectPrompt locate_subject(const model::Tokenizer& tokenizer, std::string_view before, std::string_view subject,
                             std::string_view after);

/// `count` texts of `tokens` tokens each, the start token included.
struct PrefixBatch {
  std::int64_t count = 0;
  std::int64_t tokens = 0;
};

/// Texts that the model itself writes, drawn from its 5 likeliest next tokens; equal for equal seeds.
std::vector<std::string> sample_prefixes(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                         const std::vector<PrefixBatch>& batches, std::uint64_t seed);

}  // namespace proviso::editing

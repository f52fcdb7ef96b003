#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "editing/refusal.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::editing {

/// A prompt that names a subject, as tokens.
struct SubjectPrompt {
  std::vector<std::int64_t> tokens;
  std::int64_t subject_last = 0;   ///< index of the token that holds the subject's last byte
  std::int64_t subject_first = 0;  ///< of the one that holds its first
};

/// Tokens of `before` + `subject` + `after` as one text. Where a token reaches over the subject's end, it is
/// the subject's last.
SubjectPrompt locate_subject(const model::Tokenizer& tokenizer, std::string_view before, std::string_view subject,
                             std::string_view after);

/// `count` texts of `tokens` tokens each, the start included: the texts of `starts` in turn, or the start token
/// where there are none.
struct PrefixBatch {
  std::int64_t count = 0;
  std::int64_t tokens = 0;
  std::vector<std::string> starts{};
};

/// Texts that the model itself writes, drawn from its 5 likeliest next tokens; equal for equal seeds.
std::vector<std::string> sample_prefixes(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                         const std::vector<PrefixBatch>& batches, std::uint64_t seed);

/// A fact to be written: the template with the subject in its place is to be continued by the target.
struct EditedFact {
  std::string subject;
  std::string prompt_template;  ///< holds one "{}", where the subject goes
  std::string target;           ///< " Rome"
  std::string former{};         ///< what it goes on with now, where that is known: " Paris"
};

/// What ROME and MEMIT put a fact to the model with.
struct FactPrompts {
  std::vector<SubjectPrompt> rewriting;  ///< the bare prompt, then one behind each prefix
  SubjectPrompt anchor;                  ///< whose next token, read at the subject, is to stay
  std::vector<std::int64_t> target;
};

/// A refusal where the fact cannot be edited well: a subject that ends at position 0 (the attention sink), say, a
/// target whose start would be one token with the template's end, or prompts that do not fit into `context` tokens
/// behind their prefixes.
std::variant<FactPrompts, Refusal> fact_prompts(const model::Tokenizer& tokenizer, const EditedFact& fact,
                                                const std::vector<std::string>& prefixes, std::int64_t context);

}  // namespace proviso::editing

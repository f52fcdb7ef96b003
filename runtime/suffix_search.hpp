#pragma once

// The attack `suffix_search`: greedy coordinate gradient (Zou et al. 2023, "Universal and Transferable Adversarial
// Attacks on Aligned Language Models", algorithm 1), for one prompt.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/attack_objective.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/suffix_place.hpp"

namespace proviso::runtime {

struct FoundSuffix {
  std::vector<std::int64_t> suffix;
  EncodedPrompt prompt;  ///< with it
  SearchOutcome nll;     ///< without a suffix, and with this one
};

/// In each of `attack.steps` steps the gradient by the suffix' embeddings names, for each of its tokens, the 256 that
/// would lower the loss most; `attack.candidates` suffixes that differ from the best one in one token, drawn among
/// those, are measured, and the best suffix so far is kept. So the loss never rises, and is at most that of `start`.
/// `may_take` [vocabulary] bool says which tokens can be written. Differs from the paper in that: one that is no better
/// is not taken, and only suffixes are tried whose text is read as the same tokens.
FoundSuffix search_suffix(const model::Transformer& transformer, const AttackObjective& objective,
                          const SuffixPlace& place, const dsl::Attack& attack, std::vector<std::int64_t> start,
                          const at::Tensor& may_take, std::uint64_t seed);

/// Tokens that a suffix may hold: [vocabulary of the model] bool.
at::Tensor writable_tokens(const model::Transformer& transformer, const model::Tokenizer& tokenizer);

}  // namespace proviso::runtime

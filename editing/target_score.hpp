#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "editing/certificate.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::editing {

/// A prompt and what is to follow it, as tokens; neither is empty.
struct ContinuedPrompt {
  std::vector<std::int64_t> prompt, target;
};

struct TargetScore {
  double log_probability = 0;  ///< of all the target's tokens
  double logit = 0;            ///< of its first
  bool is_argmax = true;       ///< each of its tokens is the likeliest given those before
};

/// One a prompt, in their order. Prompts that are equal are computed once, their targets after them.
std::vector<TargetScore> target_scores(const model::Transformer& transformer,
                                       const std::vector<ContinuedPrompt>& prompts,
                                       model::SiteVisitor* visitor = nullptr);

/// What came of the targets, over the prompts, of which there is one at least.
NamedNumbers score_changes(const std::vector<TargetScore>& before, const std::vector<TargetScore>& after);

/// The same of each prompt, as a certificate of its own without changes.
std::vector<Certificate> fact_certificates(const std::string& method, const std::vector<TargetScore>& before,
                                           const std::vector<TargetScore>& after);

}  // namespace proviso::editing

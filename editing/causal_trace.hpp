#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "editing/certificate.hpp"
#include "editing/fact_prompts.hpp"
#include "editing/refusal.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::editing {

/// A fact as the model knows it: the template with the subject in its place, continued by `answer` ("": by the model's
/// own likeliest next token).
struct TracedFact {
  std::string subject, prompt_template, answer;
};

/// Which layer's MLP holds facts, by causal tracing (Meng et al. 2022): the subject's embeddings are corrupted by
/// Gaussian noise of 3 standard deviations, and the outputs at the subject's last token of the MLPs of a fifth of the
/// layers are put back, around each layer in turn. A layer's indirect effect is what that gives back of the answer's
/// probability, averaged over the noise and the facts.
struct CausalTrace {
  std::vector<double> indirect_effects;  ///< by layer
  double clean = 0, corrupted = 0;       ///< the answer's probability, mean over the facts
  std::int64_t layer = 0;                ///< of the largest effect

  NamedNumbers numbers() const;  ///< as a certificate has them
};

/// Equal for equal seeds. A refusal where the noise takes nothing of the answers' probability, or no layer gives any of
/// it back: then nothing says where the facts are.
std::variant<CausalTrace, Refusal> causal_trace(const model::Transformer& transformer,
                                                const model::Tokenizer& tokenizer, const std::vector<TracedFact>& facts,
                                                std::uint64_t seed);

}  // namespace proviso::editing

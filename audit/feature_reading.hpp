#pragma once

// What is shown of one feature beside its numbers. All as JSON, which the page and the text are made of.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "audit/evidence_source.hpp"
#include "audit/metrics.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::audit {

/// Prompts of one side, or rows of text, as contexts name them: "positive", "negative", "text".
struct ReadPrompts {
  std::string side;
  const runtime::BoundPrompts* prompts = nullptr;
};

/// How many contexts, of how many tokens to each side of the strongest.
struct ContextChoice {
  std::int64_t count = 5, window = 12;
};

/// Where a feature is most active, one place a prompt: `side`, `activation`, `peak` (an index of `tokens`), `tokens`
/// and their `activations`, null where a position does not count.
nlohmann::ordered_json contexts_json(EvidenceSource& source, const std::vector<ReadPrompts>& read,
                                     dsl::FeatureId feature, const ContextChoice& choice,
                                     const model::Tokenizer& tokenizer);

/// Prompts by their value in bins of equal width: `edges`, and the counts of `positive` and `negative`.
nlohmann::ordered_json histogram_json(const Values& area);

/// `raises` and `lowers`; both empty where the feature's site leads to the stream by no linear map.
nlohmann::ordered_json logits_json(const model::Transformer& transformer, const runtime::Direction& feature,
                                   std::int64_t tokens, const model::Tokenizer& tokenizer);

/// The latents of the same autoencoder whose decoder rows point most the same way; empty for what is no latent.
nlohmann::ordered_json neighbours_json(const runtime::Direction& feature, std::int64_t count);

}  // namespace proviso::audit

#pragma once

#include <vector>

#include "editing/certificate.hpp"
#include "editing/corpus.hpp"
#include "editing/rome.hpp"
#include "editing/weight_delta.hpp"

namespace proviso::editing {

/// A key moves its site by ‖left‖·|k·u|. Under this share of what the subject's own key does, a position counts
/// as untouched.
inline constexpr double kUntouchedShare = 0.1;

/// How much of the change a rank-one edit makes on `unseen`, position by position, sinks included: the share of
/// untouched positions, of |k·u| / |k*·u| the median, the 99th percentile and the largest, and the largest and mean
/// ‖Δx‖/‖x‖ at mlp_out.
NamedNumbers key_reach(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                       const RomeSolution& solution, const Corpus& unseen);

/// What changes of weights cost on text: perplexity before and after, and the mean KL(before ‖ after) over all
/// positions, in nats. At most `most_tokens` are read, from the start. The model is left as found.
NamedNumbers text_costs(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<WeightDelta>& deltas, const Corpus& unseen, std::int64_t most_tokens = 1024);

/// By how much an RMS norm's denominator shrinks or grows: ‖x‖/‖x'‖ of what enters the final norm, before and after,
/// over the positions of `unseen` but each row's first. Removing a component rescales all others by it.
NamedNumbers norm_ratio(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<WeightDelta>& deltas, const Corpus& unseen, std::int64_t most_tokens = 1024);

}  // namespace proviso::editing

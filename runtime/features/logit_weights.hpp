#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/features/direction.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// Tokens with what is added to their logits.
using TokenWeights = std::vector<std::pair<std::int64_t, double>>;

/// The tokens whose logits a vector in the residual stream raises most, and lowers most, over the mean token's:
/// vector · (final norm's gain ⊙ unembedding), the norm's scale and all later layers left out.
struct LogitWeights {
  TokenWeights raises, lowers;
};
/// `added` [width] is what is added at `site`: `final_norm` has its gain behind it. `count` tokens of each.
LogitWeights logit_weights(const model::Transformer& transformer, const at::Tensor& added, const dsl::Site& site,
                           std::int64_t count);

/// What one unit of a feature's activation stands for in the residual stream [width] float64: along a direction of the
/// stream, a latent's decoder row, or through the map that takes neurons or heads there. Undefined where no linear map
/// does (`mlp_pre`, `q`, an output that passes a norm).
at::Tensor unit_in_stream(const model::Transformer& transformer, const Direction& feature);

}  // namespace proviso::runtime

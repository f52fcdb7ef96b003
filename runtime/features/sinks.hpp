#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "dsl/site.hpp"
#include "runtime/condition.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::runtime {

/// A position is a secondary sink where its residual norm is over this many times its prompt's median.
inline constexpr float kSinkNormRatio = 4;

/// Where a site's positions are judged: the site itself where it is the residual stream, the stream that
/// enters its layer otherwise, and the last layer's output for `final_norm` and `logits`.
dsl::Site sink_site(const dsl::Site& site, const model::ModelConfig& config);

/// The positions of one whole prompt that say something of its text: all but 0 and the secondary sinks.
/// `norms` holds its residual norms from position 0 on.
Mask ordinary_positions(std::span<const float> norms);

/// Orthonormal rows [r ≤ 4, width], float64: the leading directions that hold 99 % of the mean position-0
/// vectors over the layers, each of unit length, from a fixed list of first words. At position 0 a token sees only
/// itself, so one token a sequence is enough.
at::Tensor sink_states(const model::Transformer& transformer, const model::Tokenizer& tokenizer);

}  // namespace proviso::runtime

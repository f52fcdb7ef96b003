#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::model {

/// A position is a secondary sink where its residual norm is over this many times its prompt's median.
inline constexpr float kSinkNormRatio = 4;

/// One-token sequences that the sink states are measured on.
inline constexpr std::size_t kSinkSequences = 24;

/// Where a site's positions are judged: the site itself where it is the residual stream, the stream that
/// enters its layer otherwise, and the last layer's output for `final_norm` and `logits`.
dsl::Site sink_site(const dsl::Site& site, const ModelConfig& config);

/// The positions of one whole prompt that say something of its text: all but 0 and the secondary sinks.
/// `norms` holds its residual norms from position 0 on.
std::vector<std::uint8_t> ordinary_positions(std::span<const float> norms);

/// Orthonormal rows [r ≤ 4, width], float64 holding float32 values: the leading directions that hold 99 % of the
/// mean position-0 vectors over the layers, each of unit length, from a fixed list of first words. At position 0 a
/// token sees only itself, so one token a sequence is enough. Kept in `cache_directory` (see `TensorCache`).
at::Tensor sink_states(const Transformer& transformer, const Tokenizer& tokenizer, const std::string& cache_directory);

}  // namespace proviso::model

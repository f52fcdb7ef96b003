#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "runtime/circuits/circuit_graph.hpp"

namespace proviso::runtime {

/// What each source writes on some prompts in the mean: at positions that count (neither 0 nor secondary sinks), each
/// prompt weighing one. float32.
struct SourceMeans {
  at::Tensor embed;                    // [width]
  std::vector<at::Tensor> z, mlp_out;  // by layer: [heads · head_dim], [width]
};

/// What a circuit is for those who act on it: found on the model as loaded.
struct CircuitParts {
  at::Tensor edges;     // [destinations, sources] bools
  at::Tensor nodes;     // [sources] bools, of a circuit of nodes the embedding among them; undefined: one of edges
  SourceMeans corrupt;  ///< on its corrupt prompts, which lack the behaviour
};

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <variant>
#include <vector>

#include "editing/refusal.hpp"
#include "editing/weight_delta.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::editing {

/// An attention head, or an MLP (`head` is −1), and what it is to give in place of what it computes: of a head the
/// values z that its part of the output map reads, [head_dim]; of an MLP what it adds to the stream, [width]. float64.
struct AblatedNode {
  std::int64_t layer = 0, head = -1;
  at::Tensor constant;
};

/// Makes the share `strength` of what each node writes its constant, at every position, position 0 included, exactly:
/// of a head W_O' = (1 − s) W_O in its columns and β' = β + s W_O c; of an MLP W' = (1 − s) W and
/// β' = (1 − s) β + s c. A refusal where a constant other than 0 has no bias to go into, or where what a map writes
/// passes a norm before it joins the stream. Every node once.
std::variant<std::vector<WeightDelta>, Refusal> ablate_nodes(const model::Transformer& transformer,
                                                             const std::vector<AblatedNode>& nodes, double strength);

}  // namespace proviso::editing

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/circuits/find_circuit.hpp"
#include "runtime/circuits/measured_pairs.hpp"

namespace proviso::runtime {

/// Scores by several weighings of the pairs.
struct PartScores {
  at::Tensor parts;  // [draws, parts] float64
  at::Tensor edges;  // [draws, destinations, sources] float64, where edges were scored; otherwise undefined
};

/// What a circuit is made of: edges, or attention heads and MLPs with all edges between them, or latents and error
/// terms of autoencoders. Sets of its parts are tensors [parts] of bools.
class CircuitSpace {
 public:
  virtual ~CircuitSpace() = default;

  /// Of what `patched_pairs` made, by the circuit's method; `weights` [draws, pairs], each row with the sum 1.
  virtual PartScores scores(const MeasuredPairs& pairs, const at::Tensor& weights) const = 0;
  virtual std::int64_t count() const = 0;  ///< of all parts
  /// The `count` strongest parts of a draw, less those that are on no way to the logits.
  virtual at::Tensor strongest(const PartScores& scores, std::int64_t draw, std::int64_t count) const = 0;
  /// The same, less those that change nothing, of which there are more than a circuit should be padded with.
  virtual at::Tensor chosen(const PartScores& scores, std::int64_t draw, std::int64_t count) const {
    return strongest(scores, draw, count);
  }
  /// What `MeasuredPairs` keeps to keep these parts.
  virtual at::Tensor kept(const at::Tensor& parts) const = 0;
  /// The parts that a circuit lacks and that could matter to it.
  virtual at::Tensor outside(const at::Tensor& parts, const PartScores& scores) const = 0;
  /// Names the circuit's parts, in `order` (the strongest first), and what others act on it by.
  virtual void name(CircuitEvidence& evidence, const at::Tensor& parts, const std::vector<std::int64_t>& order,
                    const PartScores& scores, const MeasuredPairs& found_on) const = 0;
};

std::unique_ptr<CircuitSpace> circuit_space(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                                            const Autoencoders& autoencoders);

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/patched_pairs.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

struct CircuitEdge {
  std::string from, to;  ///< as `CircuitGraph` names them
  /// What m changes by where this edge alone is corrupted, as the method estimates it; none where only nodes were
  /// scored.
  std::optional<double> score;
};

struct CircuitNode {
  std::string name;  ///< "a3.h5", "m4"
  double score = 0;  ///< what m changes by where all that it writes is corrupted, as the method estimates it
};

/// m by pair, in order, where some edges carry what their sources write and all others what they are left with.
struct CircuitRuns {
  std::vector<double> clean;     ///< all edges kept
  std::vector<double> edgeless;  ///< none: where corrupt activations replace others, m of the corrupt prompts
  std::vector<double> circuit;   ///< those of the circuit
  std::vector<double> without;   ///< those outside it
};

/// What finding a circuit and measuring it saw.
struct CircuitEvidence : CircuitRuns {
  at::Tensor kept;                                // [destinations, sources] bools: the circuit's edges
  std::vector<CircuitEdge> edges;                 ///< the same, the strongest first
  std::vector<CircuitNode> nodes;                 ///< of a circuit of nodes those kept, the strongest first
  std::int64_t model_edges = 0, model_nodes = 0;  ///< of the whole model
  std::int64_t pruned = 0;  ///< kept by strength, then left out: on no way from the embedding to the logits
  struct CurvePoint {
    double share = 0;        ///< of the model's edges, or nodes, kept by strength
    std::int64_t count = 0;  ///< so many
    std::vector<double> m;
  };
  std::vector<CurvePoint> curve;  ///< shares ascend to 1
  std::int64_t passes = 0, tokens = 0;
  double seconds_to_score = 0, seconds = 0;
};

/// Scores every edge, or every node, by the circuit's method, keeps the strongest by |score|, and measures what they
/// carry and what is left without them. A circuit of nodes has all edges between those kept, the embedding and the
/// logits; a node's score is the sum of its edges' (gradients at its output times what it writes less), and where the
/// method is `exact` what patching the whole node changes.
CircuitEvidence find_circuit(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                             const BoundCircuit& bound);

/// Measures these edges [destinations, sources].
CircuitRuns run_circuit(const PatchedPairs& pairs, const at::Tensor& edges);

}  // namespace proviso::runtime

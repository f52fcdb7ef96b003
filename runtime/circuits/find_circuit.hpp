#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

struct CircuitEdge {
  std::string from, to;  ///< as `CircuitGraph` names them
  double score = 0;      ///< what m changes by where this edge alone is corrupted, as the method estimates it
};

/// What finding a circuit and measuring it saw. All m are by pair, in order.
struct CircuitEvidence {
  std::vector<CircuitEdge> edges;  ///< the strongest first
  std::int64_t model_edges = 0;    ///< of the whole model
  std::int64_t pruned = 0;         ///< kept by strength, then left out: on no way from the embedding to the logits
  std::vector<double> clean, corrupt;
  std::vector<double> circuit;  ///< every edge outside the circuit corrupted
  std::vector<double> without;  ///< every edge of the circuit corrupted
  struct CurvePoint {
    double share = 0;  ///< of the model's edges, kept by strength
    std::int64_t edges = 0;
    std::vector<double> m;
  };
  std::vector<CurvePoint> curve;  ///< shares ascend to 1
  std::int64_t passes = 0, tokens = 0;
  double seconds_to_score = 0, seconds = 0;
};

/// Scores every edge by the circuit's method, keeps the strongest by |score|, and measures what they carry and what is
/// left without them.
CircuitEvidence find_circuit(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                             const BoundCircuit& bound);

}  // namespace proviso::runtime

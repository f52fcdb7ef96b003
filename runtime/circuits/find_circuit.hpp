#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/autoencoders/autoencoder.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/circuit_asked.hpp"
#include "runtime/circuits/measured_pairs.hpp"
#include "runtime/circuits/source_means.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

struct CircuitEdge {
  std::int64_t source = 0, destination = 0;
  std::string from, to;  ///< as `CircuitGraph` names them
  /// What m changes by where this edge alone is corrupted, as the method estimates it; none where only nodes were
  /// scored.
  std::optional<double> score;
};

struct CircuitNode {
  std::int64_t number = 0;  ///< a source of the graph, or a latent or error term as `LatentNodes` numbers them
  std::string name;         ///< "a3.h5", "m4", "resid_post[15] latent 812", "resid_post[15] error"
  double score = 0;         ///< what m changes by where all that it writes is corrupted, as the method estimates it
};

/// m by pair, in order, where some edges carry what their sources write and all others what they are left with; of a
/// circuit of latents the same of those.
struct CircuitRuns {
  std::vector<double> clean;     ///< all edges kept
  std::vector<double> edgeless;  ///< none: where corrupt activations replace others, m of the corrupt prompts
  std::vector<double> circuit;   ///< those of the circuit
  std::vector<double> without;   ///< those outside it
};

/// Whether a circuit needs its parts (edges, or nodes), in the manner of Shi et al. 2024 (arXiv 2410.13032): m of the
/// circuit without one of them, against what parts from outside change where they are added one by one.
struct CircuitMinimality {
  std::vector<double> drops;  ///< |m of the circuit − m without the part|, means over the pairs, in the parts' order
  double threshold = 0;       ///< the value that 5 % of the parts from outside exceed
  std::int64_t compared = 0;  ///< so many of them: edges between the circuit's nodes, or nodes; drawn by the seed
  double needed = 0;          ///< the share of the parts whose drop is larger
};

/// What is found again where the circuit is looked for otherwise, as |both| / |either| of the parts.
struct CircuitStability {
  std::int64_t draws = 0;         ///< of the pairs, a cluster at a time, with replacement
  double overlap = 0;             ///< the mean over the draws
  double low = 0, high = 0;       ///< the middle 95 % of them
  std::vector<double> inclusion;  ///< the share of the draws that hold a part, in the parts' order
  std::vector<std::pair<std::string, double>> ablations;  ///< "mean", "zero" in place of what corrupt prompts write
  std::vector<double> lines;  ///< found on each `clean … corrupt …` alone; none where there is one
};

/// What finding a circuit and measuring it saw.
struct CircuitEvidence : CircuitRuns {
  at::Tensor kept;  // bools: the circuit's edges [destinations, sources], or its latents and error terms [nodes]
  std::vector<CircuitEdge> edges;                 ///< the same, the strongest first
  std::vector<CircuitNode> nodes;                 ///< of a circuit of nodes those kept, the strongest first
  std::int64_t model_edges = 0, model_nodes = 0;  ///< of the whole model
  /// Kept by strength, then left out: edges on no way from the embedding to the logits; latents and error terms that
  /// change nothing, as those that are the same on both prompts of every pair.
  std::int64_t pruned = 0;
  struct CurvePoint {
    double share = 0;        ///< of the model's edges, or nodes, kept by strength
    std::int64_t count = 0;  ///< so many
    std::vector<double> m;
  };
  std::vector<CurvePoint> curve;        ///< shares ascend to 1
  std::optional<CircuitRuns> found_on;  ///< on the pairs that it was found on, where it is measured on others
  std::optional<CircuitMinimality> minimality;
  std::optional<CircuitStability> stability;
  CircuitParts parts;  ///< for those who act on it
  std::int64_t passes = 0, tokens = 0;
  double seconds_to_score = 0, seconds = 0;
};

/// Scores every edge, or every node, by the circuit's method, keeps the strongest by |score|, and measures what they
/// carry and what is left without them. A circuit of nodes has all edges between those kept, the embedding and the
/// logits; a node's score is the sum of its edges' (gradients at its output times what it writes less), and where the
/// method is `exact` what patching the whole node changes. Where there are `autoencoders`, in the order in which a pass
/// reaches their sites, the nodes are their latents and error terms.
/// All is measured on the held pairs where there are some. `seed` draws pairs, and parts from outside.
using Autoencoders = std::vector<std::shared_ptr<const Autoencoder>>;
CircuitEvidence find_circuit(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                             const BoundCircuit& bound, const CircuitAsked& asked = {}, std::uint64_t seed = 0,
                             const Autoencoders& autoencoders = {});

/// |both| / |either| of the parts of two circuits of one model: of nodes where both keep those, of edges otherwise. Of
/// latents both circuits are, of the same autoencoders, or neither.
struct CircuitOverlap {
  std::int64_t both = 0, either = 0;
  double by_chance = 0;  ///< |both| / |either| for circuits of these sizes drawn blindly, in expectation
  bool nodes = false;
  double share() const { return either == 0 ? 1 : static_cast<double>(both) / static_cast<double>(either); }
};
CircuitOverlap overlap(const CircuitEvidence& a, const CircuitEvidence& b);

/// Pairs on which a circuit's parts are kept: edges, or where there are autoencoders their latents.
std::unique_ptr<MeasuredPairs> patched_pairs(const model::Transformer& transformer, const Autoencoders& autoencoders,
                                             const std::vector<BoundPair>& pairs, bool probability,
                                             dsl::Ablation ablation, MeasuredPairs::InForce in_force = {});

/// Measures these parts, and all others.
CircuitRuns run_circuit(const MeasuredPairs& pairs, const at::Tensor& kept);

}  // namespace proviso::runtime

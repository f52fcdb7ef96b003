#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/circuit_graph.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// A measure m on pairs of prompts, where every edge of the model carries either what its source writes in the run
/// itself, which is on the clean prompt, or something else in its place, edge by edge:
/// - resample: what the source wrote on the corrupt prompt,
/// - zero: nothing,
/// - mean: the mean of what it writes on the clean prompts, each prompt weighing one. Position 0 has a mean of its own;
///   secondary sinks are left out of the other.
/// A destination reads the stream of these values plus, over the edges that are kept, what their sources write now less
/// that. So without edges m is, to the bit, that of a run in which every source writes them (of `resample` the corrupt
/// prompt's), and with all edges the clean prompt's to rounding. The runs without patches are made once, here.
class PatchedPairs {
 public:
  /// What acts in a pass over these prompts, begun for that pass: a rule's hooks. Each destination then reads what the
  /// hooks make of its own stream. That takes hooks that are affine at the sites which several sources share, on either
  /// prompt at the same positions (`Binder` refuses others).
  using InForce = std::function<model::SiteVisitor*(const std::vector<std::string>& prompts)>;

  PatchedPairs(const model::Transformer& transformer, const BoundCircuit& circuit,
               dsl::Ablation ablation = dsl::Ablation::resample, InForce in_force = {});

  const CircuitGraph& graph() const { return graph_; }
  /// m by pair, in the order of the circuit's pairs.
  const std::vector<double>& clean() const { return clean_; }
  const std::vector<double>& edgeless() const { return edgeless_; }  ///< of the graph without edges
  /// m by pair with these edges [destinations, sources] kept. A pass over the clean prompts.
  std::vector<double> measure(const at::Tensor& edges) const;

  // Scores of edges and nodes, where corrupt activations replace others and nothing is in force.

  /// Edge attribution patching (Syed et al. 2023, arXiv 2310.10348): Σ over positions (a_u^corrupt − a_u^clean) ·
  /// ∂m/∂in_v for every edge u → v, the mean over pairs: what m changes by, to first order, where that edge alone is
  /// corrupted. The gradients are those on the clean prompt. [destinations, sources] float64.
  at::Tensor attribution() const;
  /// EAP-IG, inputs (Hanna et al. 2024, arXiv 2403.17806): the same with the mean of the gradients at the embeddings
  /// corrupt + k / steps · (clean − corrupt), k = 0 … steps − 1.
  at::Tensor integrated_attribution(std::int64_t steps) const;
  /// What m does change by where one edge alone is corrupted, for each edge: as many rows of passes as there are
  /// edges, each from its destination's layer on.
  at::Tensor brute_force() const;
  /// What m changes by where all that one node writes is corrupted, [sources] float64; of the embedding 0. A pass over
  /// the clean prompts for each node. To first order it is the sum of the node's edges in the attributions above.
  at::Tensor brute_force_nodes() const;

  std::int64_t passes() const { return passes_; }
  std::int64_t tokens() const { return tokens_; }  ///< fed to the model so far

 private:
  using Place = std::pair<dsl::SiteKind, std::int64_t>;
  /// What the sources of a run wrote.
  struct Written {
    at::Tensor embed;                    // [n, width]
    std::vector<at::Tensor> z, mlp_out;  // by layer: [n, heads · head_dim], [n, width]
  };
  /// … and the stream that each kind of reader saw.
  struct Trace : Written {
    std::map<Place, at::Tensor> streams;
  };
  struct Side {
    std::vector<model::Row> rows;
    std::vector<std::string> prompts;  ///< their texts
  };
  /// Pairs whose passes are one.
  struct Batch {
    Side clean_side, corrupt_side;
    std::vector<std::int64_t> last;  ///< packed index of each row's last token
    at::Tensor raised, lowered;      // [rows] token ids of m; `lowered` is undefined for a probability
    Trace clean;
    Trace reference;  ///< what stands in the place of what the sources of edges that are not kept write
    std::int64_t size() const { return last.back() + 1; }
  };
  class Stacked;
  class Tracer;
  class Patch;
  class Gradients;
  class SingleEdges;

  static std::vector<double> numbers(const at::Tensor& values);
  /// The stream for each head: no copies.
  static at::Tensor for_each_head(const at::Tensor& stream, std::int64_t heads);
  static bool is_of_heads(dsl::SiteKind kind);
  Batch make_batch(const BoundCircuit& circuit, std::size_t first, std::size_t end) const;
  /// Traces clean runs, then those of the references.
  void trace(dsl::Ablation ablation);
  /// For each batch what every source writes where it is left out: nothing, or the means over the clean prompts.
  std::vector<Written> left_out(dsl::Ablation ablation) const;
  model::SiteVisitor* begin(const Side& side) const { return in_force_ ? in_force_(side.prompts) : nullptr; }
  void require_nothing_in_force() const;
  /// Runs a pass, where `in_force` (or nothing: null) acts before `visitor` sees, and returns m by row, [rows] float64.
  at::Tensor run(const Batch& batch, const Side& side, model::StreamReader& reader, model::SiteVisitor& visitor,
                 model::SiteVisitor* in_force) const;
  static at::Tensor measure_of(const at::Tensor& logits, const at::Tensor& raised, const at::Tensor& lowered);
  /// What the heads of a layer add to the stream for this z, without the map's bias: [heads, n, width].
  at::Tensor head_outputs(std::int64_t layer, const at::Tensor& z) const;
  /// Clean less reference, by source: [sources, n · width].
  at::Tensor differences(const Batch& batch) const;
  /// With the mean of the gradients at the embeddings corrupt + share · (clean − corrupt).
  at::Tensor attribution_at(const std::vector<double>& shares) const;

  const model::Transformer& transformer_;
  CircuitGraph graph_;
  bool probability_ = false;
  InForce in_force_;
  std::vector<Batch> batches_;
  std::vector<double> clean_, edgeless_;
  mutable std::int64_t passes_ = 0, tokens_ = 0;
};

}  // namespace proviso::runtime

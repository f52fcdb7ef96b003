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
#include "runtime/circuits/source_means.hpp"
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

  /// Of the pairs that the circuit is found on.
  PatchedPairs(const model::Transformer& transformer, const BoundCircuit& circuit,
               dsl::Ablation ablation = dsl::Ablation::resample, InForce in_force = {})
      : PatchedPairs(transformer, circuit.pairs, circuit.probability, ablation, std::move(in_force)) {}
  PatchedPairs(const model::Transformer& transformer, const std::vector<BoundPair>& pairs, bool probability,
               dsl::Ablation ablation = dsl::Ablation::resample, InForce in_force = {});

  const CircuitGraph& graph() const { return graph_; }
  /// m by pair, in the order of the circuit's pairs.
  const std::vector<double>& clean() const { return clean_; }
  const std::vector<double>& edgeless() const { return edgeless_; }  ///< of the graph without edges
  /// m by pair with these edges [destinations, sources] kept. A pass over the clean prompts.
  std::vector<double> measure(const at::Tensor& edges) const;
  /// The same for each of several sets of edges, as many a pass as its memory holds.
  std::vector<std::vector<double>> measure_each(const std::vector<at::Tensor>& edges) const;
  /// What sources write on the corrupt prompts in the mean. Of `resample` only.
  SourceMeans corrupt_means() const;

  // Scores of edges and nodes, with nothing in force.

  /// Edge attribution patching (Syed et al. 2023, arXiv 2310.10348): Σ over positions (a_u^corrupt − a_u^clean) ·
  /// ∂m/∂in_v for every edge u → v, the mean over pairs: what m changes by, to first order, where that edge alone is
  /// corrupted. The gradients are those on the clean prompt. [destinations, sources] float64.
  at::Tensor attribution() const;
  /// EAP-IG, inputs (Hanna et al. 2024, arXiv 2403.17806): the same with the mean of the gradients at the embeddings
  /// corrupt + k / steps · (clean − corrupt), k = 0 … steps − 1.
  at::Tensor integrated_attribution(std::int64_t steps) const;
  /// The same with other weights of the pairs, a row of `weights` [draws, pairs] each, which sum to 1: `shares` are the
  /// embeddings' as above. [draws, destinations, sources] float64, for no more passes than one of them.
  at::Tensor weighted_attribution(const std::vector<double>& shares, const at::Tensor& weights) const;
  /// 1 where `steps` is 0 (attribution at the clean prompt), k / steps otherwise.
  static std::vector<double> embedding_shares(std::int64_t steps);
  /// What m does change by where one edge alone is corrupted, for each edge: as many rows of passes as there are
  /// edges, each from its destination's layer on.
  at::Tensor brute_force() const;
  /// The same with other weights of the pairs, as in `weighted_attribution`.
  at::Tensor weighted_brute_force(const at::Tensor& weights) const;
  /// What m changes by where all that one node writes is corrupted, [sources] float64; of the embedding 0. A pass over
  /// the clean prompts for each node. To first order it is the sum of the node's edges in the attributions above.
  at::Tensor brute_force_nodes() const;
  at::Tensor weighted_brute_force_nodes(const at::Tensor& weights) const;

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
  Batch make_batch(const std::vector<BoundPair>& pairs, std::size_t first, std::size_t end) const;
  /// Traces clean runs, then those of the references.
  void trace(dsl::Ablation ablation);
  /// For each batch what every source writes where it is left out: nothing, or the means over the clean prompts.
  std::vector<Written> left_out(dsl::Ablation ablation) const;
  /// A mean over prompts at position 0, and one at the others that count, [width] float64; undefined where none does.
  struct Mean {
    at::Tensor first, others;
  };
  /// Of one source on either side; `stream` is what it reads, by which sinks are told.
  template <class Of, class Stream>
  Mean mean_of(bool corrupt, Of of, Stream stream) const;
  static const Trace& trace_of(const Batch& batch, bool corrupt) { return corrupt ? batch.reference : batch.clean; }
  model::SiteVisitor* begin(const Side& side, std::int64_t copies = 1) const;
  void require_nothing_in_force() const;
  at::Tensor even_weights() const;  // [1, pairs]
  /// Runs a pass, where `in_force` (or nothing: null) acts before `visitor` sees, and returns m by row, [rows] float64.
  /// `copies` of the side go through together, one after another.
  at::Tensor run(const Batch& batch, const Side& side, model::StreamReader& reader, model::SiteVisitor& visitor,
                 model::SiteVisitor* in_force, std::int64_t copies = 1) const;
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

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/circuit_graph.hpp"
#include "runtime/circuits/measured_pairs.hpp"
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
/// A rule in force makes something of each destination's own stream. That takes hooks that are affine at the sites
/// which several sources share, on either prompt at the same positions (`Binder` refuses others).
class PatchedPairs : public MeasuredPairs {
 public:
  /// Of the pairs that the circuit is found on.
  PatchedPairs(const model::Transformer& transformer, const BoundCircuit& circuit,
               dsl::Ablation ablation = dsl::Ablation::resample, InForce in_force = {})
      : PatchedPairs(transformer, circuit.pairs, circuit.probability, ablation, std::move(in_force)) {}
  PatchedPairs(const model::Transformer& transformer, const std::vector<BoundPair>& pairs, bool probability,
               dsl::Ablation ablation = dsl::Ablation::resample, InForce in_force = {});

  const CircuitGraph& graph() const { return graph_; }
  at::Tensor all() const override { return graph_.all(); }
  /// Sets of edges [destinations, sources].
  std::vector<std::vector<double>> measure_each(const std::vector<at::Tensor>& edges) const override;
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
  /// What m does change by where one edge alone is corrupted, for each edge: as many rows of passes as there are
  /// edges, each from its destination's layer on.
  at::Tensor brute_force() const;
  /// The same with other weights of the pairs, as in `weighted_attribution`.
  at::Tensor weighted_brute_force(const at::Tensor& weights) const;
  /// What m changes by where all that one node writes is corrupted, [sources] float64; of the embedding 0. A pass over
  /// the clean prompts for each node. To first order it is the sum of the node's edges in the attributions above.
  at::Tensor brute_force_nodes() const;
  at::Tensor weighted_brute_force_nodes(const at::Tensor& weights) const;

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
  struct Batch : MeasuredPairs::Batch {
    Trace clean;
    Trace reference;  ///< what stands in the place of what the sources of edges that are not kept write
  };
  class Tracer;
  class Patch;
  class Gradients;
  class SingleEdges;

  /// The stream for each head: no copies.
  static at::Tensor for_each_head(const at::Tensor& stream, std::int64_t heads);
  static bool is_of_heads(dsl::SiteKind kind);
  /// Traces clean runs, then those of the references.
  void trace(dsl::Ablation ablation);
  /// For each batch what every source writes where it is left out: nothing, or the means over the clean prompts.
  std::vector<Written> left_out(dsl::Ablation ablation) const;
  /// Of one source on either side; `stream` is what it reads, by which sinks are told.
  template <class Of, class Stream>
  Mean mean_of(bool corrupt, Of of, Stream stream) const;
  static const Trace& trace_of(const Batch& batch, bool corrupt) { return corrupt ? batch.reference : batch.clean; }
  /// Runs a pass for which `reader` reads, and sees what is written: m by row.
  template <class Reader>
  at::Tensor read(const Batch& batch, const Side& side, Reader& reader, model::SiteVisitor* in_force,
                  std::int64_t copies = 1) const {
    model::Pass pass;
    pass.reader = &reader;
    return run(batch, side, std::move(pass), &reader, in_force, copies);
  }
  /// What the heads of a layer add to the stream for this z, without the map's bias: [heads, n, width].
  at::Tensor head_outputs(std::int64_t layer, const at::Tensor& z) const;
  /// Clean less reference, by source: [sources, n · width].
  at::Tensor differences(const Batch& batch) const;
  /// With the mean of the gradients at the embeddings corrupt + share · (clean − corrupt).
  at::Tensor attribution_at(const std::vector<double>& shares) const;

  CircuitGraph graph_;
  std::vector<Batch> batches_;
};

}  // namespace proviso::runtime

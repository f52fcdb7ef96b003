#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "runtime/bound_rules.hpp"
#include "runtime/circuits/circuit_graph.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// A measure m on pairs of prompts, where every edge of the model carries either what its source writes in the run
/// itself, which is on the clean prompt, or what it wrote on the corrupt one (resample ablation, edge by edge). A
/// destination reads the corrupt stream plus, over the edges that are kept, what their sources write now less what they
/// wrote then. So without edges m is the corrupt prompt's to the bit, and with all of them the clean prompt's to
/// rounding. Both runs of each pair are made once, here.
class PatchedPairs {
 public:
  PatchedPairs(const model::Transformer& transformer, const BoundCircuit& circuit);

  const CircuitGraph& graph() const { return graph_; }
  /// m by pair, in the order of the circuit's pairs.
  const std::vector<double>& clean() const { return clean_; }
  const std::vector<double>& edgeless() const { return edgeless_; }
  /// m by pair with these edges [destinations, sources] kept. A pass over the clean prompts.
  std::vector<double> measure(const at::Tensor& edges) const;

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
  /// What a run wrote, and the stream that each kind of reader saw.
  struct Trace {
    at::Tensor embed;                    // [n, width]
    std::vector<at::Tensor> z, mlp_out;  // by layer: [n, heads · head_dim], [n, width]
    std::map<Place, at::Tensor> streams;
  };
  /// Pairs whose passes are one.
  struct Batch {
    std::vector<model::Row> clean_rows, corrupt_rows;
    std::vector<std::int64_t> last;  ///< packed index of each row's last token
    at::Tensor raised, lowered;      // [rows] token ids of m; `lowered` is undefined for a probability
    Trace clean, corrupt;
    std::int64_t size() const { return last.back() + 1; }
  };
  class Tracer;
  class Patch;
  class Gradients;
  class SingleEdges;

  Batch make_batch(const BoundCircuit& circuit, std::size_t first, std::size_t end) const;
  /// Runs a pass and returns m by row, [rows] float64.
  at::Tensor run(const Batch& batch, const std::vector<model::Row>& rows, model::StreamReader& reader,
                 model::SiteVisitor& visitor) const;
  static at::Tensor measure_of(const at::Tensor& logits, const at::Tensor& raised, const at::Tensor& lowered);
  /// What the heads of a layer add to the stream for this z, without the map's bias: [heads, n, width].
  at::Tensor head_outputs(std::int64_t layer, const at::Tensor& z) const;
  /// Clean less corrupt, by source: [sources, n · width].
  at::Tensor differences(const Batch& batch) const;
  /// With the mean of the gradients at the embeddings corrupt + share · (clean − corrupt).
  at::Tensor attribution_at(const std::vector<double>& shares) const;

  const model::Transformer& transformer_;
  CircuitGraph graph_;
  bool probability_ = false;
  std::vector<Batch> batches_;
  std::vector<double> clean_, edgeless_;
  mutable std::int64_t passes_ = 0, tokens_ = 0;
};

}  // namespace proviso::runtime

// The part of `PatchedPairs` that scores edges and nodes.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "runtime/circuits/patched_pairs.hpp"

namespace proviso::runtime {

using dsl::Site;
using dsl::SiteKind;

namespace {

/// Tokens in a pass that patches single edges.
constexpr std::int64_t kTokensInPass = 512;

}  // namespace

/// Gives everyone the stream of a run that starts from an embedding between the two, and keeps the gradient of m
/// by each destination's input.
class PatchedPairs::Gradients : public model::StreamReader, public model::SiteVisitor {
 public:
  Gradients(const CircuitGraph& graph, at::Tensor embed) : graph_(graph), embed_(std::move(embed)) {}

  at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor& stream) override {
    // A view of its own, so that the gradient kept is this reader's and not all readers'.
    at::Tensor seen = is_of_heads(kind) ? for_each_head(stream, graph_.heads()) : stream.view(stream.sizes());
    seen.retain_grad();
    inputs_[{kind, layer}] = seen;
    return seen;
  }
  bool wants(const Site& site) const override { return site.kind == SiteKind::embed; }
  void visit(const Site&, at::Tensor& x, const model::PackedLayout&) override {
    x = embed_.detach().clone().requires_grad_(true);
  }

  /// Adds Σ (corrupt − clean) · gradient for every edge, each token weighing as `weights` [draws, n] say: `scores`
  /// [draws, destinations, sources]; `differences` [sources, n · width] are clean − corrupt.
  void add_to(at::Tensor& scores, const at::Tensor& differences, const at::Tensor& weights) const {
    for (const auto& [place, input] : inputs_) {
      const at::Tensor& gradient = input.grad();
      if (!gradient.defined()) continue;  // nothing of m depends on it
      const auto readers = graph_.readers(place.first, place.second);
      const at::Tensor rows =  // [count, n, width]
          is_of_heads(place.first) ? gradient.transpose(0, 1) : gradient.unsqueeze(0);
      for (std::int64_t draw = 0; draw < weights.size(0); ++draw) {
        const at::Tensor weighed =
            (rows * weights[draw].to(rows.options()).view({1, -1, 1})).reshape({readers.count, differences.size(1)});
        scores[draw]
            .narrow(0, readers.first, readers.count)
            .narrow(1, 0, readers.sources)
            .sub_(at::mm(weighed, differences.narrow(0, 0, readers.sources).t()).to(at::kDouble).cpu());
      }
    }
  }

 private:
  const CircuitGraph& graph_;
  at::Tensor embed_;
  std::map<Place, at::Tensor> inputs_;
};

/// Gives everyone the stream, and one destination also what an edge's corruption changes, another edge a row.
class PatchedPairs::SingleEdges : public model::StreamReader {
 public:
  /// `changes` [n, width]
  SingleEdges(const CircuitGraph& graph, CircuitGraph::Reading at, at::Tensor changes)
      : graph_(graph), at_(at), changes_(std::move(changes)) {}

  at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor& stream) override {
    const bool here = kind == at_.kind && layer == at_.layer;
    if (!is_of_heads(kind)) return here ? stream + changes_ : stream;
    const at::Tensor seen = for_each_head(stream, graph_.heads());
    if (!here) return seen;
    at::Tensor changed = seen.clone(at::MemoryFormat::Contiguous);
    changed.select(1, at_.head).add_(changes_);
    return changed;
  }

 private:
  const CircuitGraph& graph_;
  CircuitGraph::Reading at_;
  at::Tensor changes_;
};

at::Tensor PatchedPairs::attribution() const { return attribution_at(path_shares(0)); }

at::Tensor PatchedPairs::integrated_attribution(std::int64_t steps) const { return attribution_at(path_shares(steps)); }

at::Tensor PatchedPairs::attribution_at(const std::vector<double>& shares) const {
  return weighted_attribution(shares, even_weights())[0];
}

at::Tensor PatchedPairs::weighted_attribution(const std::vector<double>& shares, const at::Tensor& weights) const {
  require_nothing_in_force();
  at::Tensor scores = at::zeros({weights.size(0), graph_.destinations(), graph_.sources()}, at::kDouble);
  std::int64_t first_pair = 0;
  for (const Batch& batch : batches_) {
    at::Tensor changes, of_tokens;
    {
      const at::NoGradGuard no_grad;
      changes = differences(batch);
      of_tokens = token_weights(weights, batch, first_pair).to(changes.device());
      first_pair += std::ssize(batch.last);
    }
    for (const double share : shares) {
      Gradients gradients(graph_, at::lerp(batch.reference.embed, batch.clean.embed, share));
      {
        const at::AutoGradMode with_gradients(true);
        read(batch, batch.clean_side, gradients, nullptr).sum().backward();
      }
      const at::NoGradGuard no_grad;
      gradients.add_to(scores, changes, of_tokens);
    }
  }
  return scores.div_(static_cast<double>(shares.size()));
}

at::Tensor PatchedPairs::brute_force() const { return weighted_brute_force(even_weights())[0]; }

at::Tensor PatchedPairs::weighted_brute_force(const at::Tensor& weights) const {
  require_nothing_in_force();
  const at::NoGradGuard no_grad;
  at::Tensor scores = at::zeros({weights.size(0), graph_.destinations(), graph_.sources()}, at::kDouble);
  std::size_t first_pair = 0;
  for (const Batch& batch : batches_) {
    const at::Tensor changes =
        differences(batch).view({graph_.sources(), batch.size(), transformer_.config().width}).neg();
    for (std::int64_t destination = 0; destination < graph_.destinations(); ++destination) {
      const auto at = graph_.reading(destination);
      const bool of_logits = at.kind == SiteKind::final_norm;
      const std::int64_t sources = graph_.readers(at.kind, at.layer).sources;
      // The clean stream before this layer, from which its pass starts.
      const at::Tensor& stream = batch.clean.streams.at(of_logits ? Place{at.kind, -1} : Place{SiteKind::q, at.layer});
      const std::int64_t at_once = std::max<std::int64_t>(1, kTokensInPass / batch.size());
      for (std::int64_t first = 0; first < sources; first += at_once) {
        const std::int64_t count = std::min(at_once, sources - first);
        SingleEdges reader(graph_, at, changes.narrow(0, first, count).flatten(0, 1));
        model::Pass pass;
        pass.reader = &reader;
        pass.start_after = of_logits ? graph_.layers() - 1 : at.layer - 1;
        pass.start_values = stream.repeat({count, 1});
        const auto m = numbers(run(batch, batch.clean_side, std::move(pass), nullptr, nullptr, count));
        for (std::size_t i = 0; i < m.size(); ++i) {
          const std::size_t pair = i % batch.last.size();
          scores.select(1, destination)
              .select(1, first + static_cast<std::int64_t>(i / batch.last.size()))
              .add_(weights.select(1, static_cast<std::int64_t>(first_pair + pair)), m[i] - clean_[first_pair + pair]);
        }
      }
    }
    first_pair += batch.last.size();
  }
  return scores;
}

at::Tensor PatchedPairs::brute_force_nodes() const { return weighted_brute_force_nodes(even_weights())[0]; }

at::Tensor PatchedPairs::weighted_brute_force_nodes(const at::Tensor& weights) const {
  require_nothing_in_force();
  std::vector<at::Tensor> without;
  for (std::int64_t source = 1; source < graph_.sources(); ++source) {
    without.push_back(graph_.all());
    without.back().select(1, source).fill_(false);
  }
  const auto m = measure_each(without);
  at::Tensor scores = at::zeros({weights.size(0), graph_.sources()}, at::kDouble);
  for (std::size_t node = 0; node < m.size(); ++node) {
    for (std::size_t i = 0; i < clean_.size(); ++i) {
      scores.select(1, static_cast<std::int64_t>(node) + 1)
          .add_(weights.select(1, static_cast<std::int64_t>(i)), m[node][i] - clean_[i]);
    }
  }
  return scores;
}

}  // namespace proviso::runtime

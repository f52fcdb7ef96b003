#include "runtime/circuits/circuit_space.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/circuits/latent_pairs.hpp"
#include "runtime/circuits/patched_pairs.hpp"

namespace proviso::runtime {

namespace {

std::int64_t steps_of(const dsl::CircuitMethodCall& method) {
  return method.method == dsl::CircuitMethod::eap_ig ? method.steps : 0;
}

/// The edges of the model, or its heads and MLPs with all edges between them.
class GraphSpace : public CircuitSpace {
 public:
  GraphSpace(const model::Transformer& transformer, const dsl::CircuitMethodCall& method)
      : graph_(transformer.config()), method_(method) {}

 protected:
  bool exact() const { return method_.method == dsl::CircuitMethod::exact; }
  bool greedy() const { return method_.greedy; }
  static const PatchedPairs& of(const MeasuredPairs& pairs) { return static_cast<const PatchedPairs&>(pairs); }
  at::Tensor attribution(const MeasuredPairs& pairs, const at::Tensor& weights) const {
    return of(pairs).weighted_attribution(MeasuredPairs::path_shares(steps_of(method_)), weights);
  }
  CircuitEdge edge(std::int64_t source, std::int64_t destination, const at::Tensor& scores) const {
    CircuitEdge edge{source, destination, graph_.source_name(source), graph_.destination_name(destination), {}};
    if (scores.defined()) edge.score = scores[destination][source].item<double>();
    return edge;
  }
  void name_model(CircuitEvidence& evidence, const MeasuredPairs& found_on) const {
    evidence.model_edges = graph_.edges();
    evidence.model_nodes = graph_.nodes();
    evidence.parts.edges = evidence.kept;
    evidence.parts.corrupt = of(found_on).corrupt_means();
  }

  CircuitGraph graph_;

 private:
  const dsl::CircuitMethodCall& method_;
};

/// Parts are edges: [destinations, sources], row by row.
class EdgeSpace : public GraphSpace {
 public:
  using GraphSpace::GraphSpace;

  PartScores scores(const MeasuredPairs& pairs, const at::Tensor& weights) const override {
    const at::Tensor edges = exact() ? of(pairs).weighted_brute_force(weights) : attribution(pairs, weights);
    return {edges.flatten(1), edges};
  }
  std::int64_t count() const override { return graph_.edges(); }
  at::Tensor strongest(const PartScores& scores, std::int64_t draw, std::int64_t count) const override {
    const at::Tensor of_draw = scores.edges[draw];
    return graph_.alive(greedy() ? graph_.grown(of_draw, count) : graph_.strongest(of_draw, count)).flatten();
  }
  at::Tensor kept(const at::Tensor& parts) const override {
    return parts.view({graph_.destinations(), graph_.sources()});
  }
  /// Edges that it lacks between the nodes that it has: others lead nowhere.
  at::Tensor outside(const at::Tensor& parts, const PartScores&) const override {
    return graph_.between(graph_.touched(kept(parts))).flatten().logical_and(parts.logical_not());
  }
  void name(CircuitEvidence& evidence, const at::Tensor&, const std::vector<std::int64_t>& order,
            const PartScores& scores, const MeasuredPairs& found_on) const override {
    name_model(evidence, found_on);
    for (const std::int64_t part : order)
      evidence.edges.push_back(edge(part % graph_.sources(), part / graph_.sources(), scores.edges[0]));
  }
};

/// Parts are heads and MLPs: the sources but the embedding.
class NodeSpace : public GraphSpace {
 public:
  using GraphSpace::GraphSpace;

  PartScores scores(const MeasuredPairs& pairs, const at::Tensor& weights) const override {
    if (exact()) return {of(pairs).weighted_brute_force_nodes(weights).narrow(1, 1, count()), {}};
    const at::Tensor edges = attribution(pairs, weights);
    return {edges.sum(1).narrow(1, 1, count()), edges};
  }
  std::int64_t count() const override { return graph_.nodes(); }
  at::Tensor strongest(const PartScores& scores, std::int64_t draw, std::int64_t count) const override {
    const at::Tensor of_sources = at::cat({at::zeros({1}, at::kDouble), scores.parts[draw]});
    return graph_.strongest_nodes(of_sources, count).narrow(0, 1, this->count());
  }
  at::Tensor kept(const at::Tensor& parts) const override { return graph_.between(sources(parts)); }
  at::Tensor outside(const at::Tensor& parts, const PartScores&) const override { return parts.logical_not(); }
  void name(CircuitEvidence& evidence, const at::Tensor& parts, const std::vector<std::int64_t>& order,
            const PartScores& scores, const MeasuredPairs& found_on) const override {
    name_model(evidence, found_on);
    evidence.parts.nodes = sources(parts);
    for (const std::int64_t part : order)
      evidence.nodes.push_back({part + 1, graph_.source_name(part + 1), scores.parts[0][part].item<double>()});
    const at::Tensor of_edges = scores.edges.defined() ? scores.edges[0] : at::Tensor();
    const auto has = evidence.kept.accessor<bool, 2>();
    for (std::int64_t to = 0; to < graph_.destinations(); ++to) {
      for (std::int64_t from = 0; from < graph_.sources(); ++from) {
        if (has[to][from]) evidence.edges.push_back(edge(from, to, of_edges));
      }
    }
    std::stable_sort(evidence.edges.begin(), evidence.edges.end(), [](const CircuitEdge& a, const CircuitEdge& b) {
      return std::abs(a.score.value_or(0)) > std::abs(b.score.value_or(0));
    });
  }

 private:
  static at::Tensor sources(const at::Tensor& parts) { return at::cat({at::ones({1}, at::kBool), parts}); }
};

/// Parts are latents and error terms.
class LatentSpace : public CircuitSpace {
 public:
  LatentSpace(const dsl::CircuitMethodCall& method, const Autoencoders& autoencoders)
      : nodes_(autoencoders), method_(method) {}

  PartScores scores(const MeasuredPairs& pairs, const at::Tensor& weights) const override {
    const auto& of = static_cast<const LatentPairs&>(pairs);
    return {method_.method == dsl::CircuitMethod::exact
                ? of.weighted_brute_force(weights)
                : of.weighted_attribution(MeasuredPairs::path_shares(steps_of(method_)), weights),
            {}};
  }
  std::int64_t count() const override { return nodes_.count(); }
  at::Tensor strongest(const PartScores& scores, std::int64_t draw, std::int64_t count) const override {
    return LatentNodes::strongest(scores.parts[draw], count);
  }
  at::Tensor chosen(const PartScores& scores, std::int64_t draw, std::int64_t count) const override {
    return strongest(scores, draw, count).logical_and(scores.parts[draw].ne(0));
  }
  at::Tensor kept(const at::Tensor& parts) const override { return parts; }
  /// What scores nothing says nothing of what parts from outside do.
  at::Tensor outside(const at::Tensor& parts, const PartScores& scores) const override {
    return scores.parts[0].ne(0).logical_and(parts.logical_not());
  }
  void name(CircuitEvidence& evidence, const at::Tensor& parts, const std::vector<std::int64_t>& order,
            const PartScores& scores, const MeasuredPairs&) const override {
    evidence.model_nodes = count();
    evidence.parts.nodes = parts;
    for (const std::int64_t node : order)
      evidence.nodes.push_back({node, nodes_.name(node), scores.parts[0][node].item<double>()});
  }

 private:
  LatentNodes nodes_;
  const dsl::CircuitMethodCall& method_;
};

}  // namespace

std::unique_ptr<CircuitSpace> circuit_space(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                                            const Autoencoders& autoencoders) {
  if (!autoencoders.empty()) return std::make_unique<LatentSpace>(declared.method, autoencoders);
  if (declared.keep.nodes) return std::make_unique<NodeSpace>(transformer, declared.method);
  return std::make_unique<EdgeSpace>(transformer, declared.method);
}

std::unique_ptr<MeasuredPairs> patched_pairs(const model::Transformer& transformer, const Autoencoders& autoencoders,
                                             const std::vector<BoundPair>& pairs, bool probability,
                                             dsl::Ablation ablation, MeasuredPairs::InForce in_force) {
  if (autoencoders.empty())
    return std::make_unique<PatchedPairs>(transformer, pairs, probability, ablation, std::move(in_force));
  return std::make_unique<LatentPairs>(transformer, LatentNodes(autoencoders), pairs, probability, ablation,
                                       std::move(in_force));
}

}  // namespace proviso::runtime

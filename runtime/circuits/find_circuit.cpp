#include "runtime/circuits/find_circuit.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "runtime/progress.hpp"

namespace proviso::runtime {

namespace {

/// Of the Mechanistic Interpretability Benchmark's curves (arXiv 2504.13151).
constexpr double kShares[] = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1};

struct Scores {
  at::Tensor edges;  // [destinations, sources] float64; undefined where nodes were patched whole
  at::Tensor nodes;  // [sources] float64; undefined where edges are kept
};

Scores scores_of(const PatchedPairs& pairs, const dsl::CircuitDecl& declared) {
  Scores scores;
  switch (declared.method.method) {
    case dsl::CircuitMethod::eap:
      scores.edges = pairs.attribution();
      break;
    case dsl::CircuitMethod::eap_ig:
      scores.edges = pairs.integrated_attribution(declared.method.steps);
      break;
    case dsl::CircuitMethod::exact:
      if (declared.keep.nodes) {
        scores.nodes = pairs.brute_force_nodes();
        return scores;
      }
      scores.edges = pairs.brute_force();
      break;
  }
  if (declared.keep.nodes) scores.nodes = scores.edges.sum(0);
  return scores;
}

std::vector<CircuitEdge> strongest_first(const CircuitGraph& graph, const at::Tensor& edges, const at::Tensor& scores) {
  std::vector<CircuitEdge> found;
  const auto has = edges.accessor<bool, 2>();
  for (std::int64_t to = 0; to < graph.destinations(); ++to) {
    for (std::int64_t from = 0; from < graph.sources(); ++from) {
      if (!has[to][from]) continue;
      found.push_back({graph.source_name(from), graph.destination_name(to), std::nullopt});
      if (scores.defined()) found.back().score = scores[to][from].item<double>();
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const CircuitEdge& a, const CircuitEdge& b) {
    return std::abs(a.score.value_or(0)) > std::abs(b.score.value_or(0));
  });
  return found;
}

std::vector<CircuitNode> strongest_nodes(const CircuitGraph& graph, const at::Tensor& nodes, const at::Tensor& scores) {
  std::vector<CircuitNode> found;
  for (std::int64_t node = 1; node < graph.sources(); ++node) {
    if (nodes[node].item<bool>()) found.push_back({graph.source_name(node), scores[node].item<double>()});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const CircuitNode& a, const CircuitNode& b) { return std::abs(a.score) > std::abs(b.score); });
  return found;
}

}  // namespace

CircuitEvidence find_circuit(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                             const BoundCircuit& bound) {
  const auto started = std::chrono::steady_clock::now();
  const PatchedPairs pairs(transformer, bound);
  const CircuitGraph& graph = pairs.graph();
  const Scores scores = scores_of(pairs, declared);
  const bool nodes = declared.keep.nodes;
  const auto strongest = [&](std::int64_t count) {
    return nodes ? graph.between(graph.strongest_nodes(scores.nodes, count)) : graph.strongest(scores.edges, count);
  };

  CircuitEvidence evidence;
  evidence.seconds_to_score = seconds_since(started);
  const at::Tensor strong = strongest(bound.kept);
  evidence.kept = graph.alive(strong);
  evidence.edges = strongest_first(graph, evidence.kept, scores.edges);
  if (nodes) evidence.nodes = strongest_nodes(graph, graph.strongest_nodes(scores.nodes, bound.kept), scores.nodes);
  evidence.model_edges = graph.edges();
  evidence.model_nodes = graph.nodes();
  evidence.pruned = (strong.sum() - evidence.kept.sum()).item<std::int64_t>();
  static_cast<CircuitRuns&>(evidence) = run_circuit(pairs, evidence.kept);
  const std::int64_t all = nodes ? graph.nodes() : graph.edges();
  for (const double share : kShares) {
    const auto count = std::llround(share * static_cast<double>(all));
    if (count == 0 || (!evidence.curve.empty() && evidence.curve.back().count == count)) continue;
    evidence.curve.push_back({share, count, pairs.measure(graph.alive(strongest(count)))});
  }
  evidence.passes = pairs.passes();
  evidence.tokens = pairs.tokens();
  evidence.seconds = seconds_since(started);
  return evidence;
}

CircuitRuns run_circuit(const PatchedPairs& pairs, const at::Tensor& edges) {
  return {pairs.clean(), pairs.edgeless(), pairs.measure(edges),
          pairs.measure(pairs.graph().all().logical_and(edges.logical_not()))};
}

}  // namespace proviso::runtime

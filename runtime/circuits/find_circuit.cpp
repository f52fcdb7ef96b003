#include "runtime/circuits/find_circuit.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "runtime/circuits/patched_pairs.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

namespace {

/// Of the Mechanistic Interpretability Benchmark's curves (arXiv 2504.13151).
constexpr double kShares[] = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1};

at::Tensor scores_of(const PatchedPairs& pairs, const dsl::CircuitMethodCall& call) {
  switch (call.method) {
    case dsl::CircuitMethod::eap:
      return pairs.attribution();
    case dsl::CircuitMethod::eap_ig:
      return pairs.integrated_attribution(call.steps);
    case dsl::CircuitMethod::exact:
      return pairs.brute_force();
  }
  return {};
}

std::vector<CircuitEdge> strongest_first(const CircuitGraph& graph, const at::Tensor& edges, const at::Tensor& scores) {
  std::vector<CircuitEdge> found;
  const auto has = edges.accessor<bool, 2>();
  const auto score = scores.accessor<double, 2>();
  for (std::int64_t to = 0; to < graph.destinations(); ++to) {
    for (std::int64_t from = 0; from < graph.sources(); ++from) {
      if (has[to][from]) found.push_back({graph.source_name(from), graph.destination_name(to), score[to][from]});
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const CircuitEdge& a, const CircuitEdge& b) { return std::abs(a.score) > std::abs(b.score); });
  return found;
}

}  // namespace

CircuitEvidence find_circuit(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                             const BoundCircuit& bound) {
  const auto started = std::chrono::steady_clock::now();
  const PatchedPairs pairs(transformer, bound);
  const CircuitGraph& graph = pairs.graph();
  const at::Tensor scores = scores_of(pairs, declared.method);

  CircuitEvidence evidence;
  evidence.seconds_to_score = seconds_since(started);
  const at::Tensor strongest = graph.strongest(scores, bound.edges), kept = graph.alive(strongest);
  evidence.edges = strongest_first(graph, kept, scores);
  evidence.model_edges = graph.edges();
  evidence.pruned = (strongest.sum() - kept.sum()).item<std::int64_t>();
  evidence.clean = pairs.clean();
  evidence.corrupt = pairs.corrupt();
  evidence.circuit = pairs.measure(kept);
  evidence.without = pairs.measure(graph.all().logical_and(kept.logical_not()));
  for (const double share : kShares) {
    const auto count = std::llround(share * static_cast<double>(graph.edges()));
    if (count == 0 || (!evidence.curve.empty() && evidence.curve.back().edges == count)) continue;
    evidence.curve.push_back({share, count, pairs.measure(graph.alive(graph.strongest(scores, count)))});
  }
  evidence.passes = pairs.passes();
  evidence.tokens = pairs.tokens();
  evidence.seconds = seconds_since(started);
  return evidence;
}

}  // namespace proviso::runtime

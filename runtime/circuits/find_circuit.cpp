#include "runtime/circuits/find_circuit.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "runtime/model/random.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

namespace {

/// Of the Mechanistic Interpretability Benchmark's curves (arXiv 2504.13151).
constexpr double kShares[] = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1};

/// Draws of the pairs that tell how stable a circuit is.
constexpr std::int64_t kDraws = 32;
/// Parts from outside that those of a circuit are compared with, at most.
constexpr std::int64_t kOutside = 64;
constexpr double kOutsideQuantile = 0.95;

/// Of several weighings of the pairs.
struct Scores {
  at::Tensor edges;  // [draws, destinations, sources] float64; undefined where nodes were patched whole
  at::Tensor nodes;  // [draws, sources] float64; undefined where edges are kept
};

Scores scores_of(const PatchedPairs& pairs, const dsl::CircuitDecl& declared, const at::Tensor& weights) {
  Scores scores;
  switch (declared.method.method) {
    case dsl::CircuitMethod::eap:
      scores.edges = pairs.weighted_attribution(PatchedPairs::embedding_shares(0), weights);
      break;
    case dsl::CircuitMethod::eap_ig:
      scores.edges = pairs.weighted_attribution(PatchedPairs::embedding_shares(declared.method.steps), weights);
      break;
    case dsl::CircuitMethod::exact:
      if (declared.keep.nodes) {
        scores.nodes = pairs.weighted_brute_force_nodes(weights);
        return scores;
      }
      scores.edges = pairs.weighted_brute_force(weights);
      break;
  }
  if (declared.keep.nodes) scores.nodes = scores.edges.sum(1);
  return scores;
}

at::Tensor even(std::size_t pairs) {
  return at::full({1, static_cast<std::int64_t>(pairs)}, 1.0 / static_cast<double>(pairs), at::kDouble);
}

/// The pairs of the clusters drawn, a row a draw.
at::Tensor drawn_weights(const std::vector<BoundPair>& pairs, std::uint64_t seed) {
  std::vector<std::int64_t> clusters;
  for (const BoundPair& pair : pairs) {
    if (std::find(clusters.begin(), clusters.end(), pair.clean.cluster) == clusters.end())
      clusters.push_back(pair.clean.cluster);
  }
  at::Tensor weights = at::zeros({kDraws, std::ssize(pairs)}, at::kDouble);
  for (std::int64_t draw = 0; draw < kDraws; ++draw) {
    model::NormalSource random(model::mix_seed(seed, draw));
    for (std::size_t i = 0; i < clusters.size(); ++i) {
      const std::int64_t cluster = clusters[random.below(clusters.size())];
      for (std::size_t pair = 0; pair < pairs.size(); ++pair) {
        if (pairs[pair].clean.cluster == cluster) weights[draw][static_cast<std::int64_t>(pair)] += 1;
      }
    }
    weights[draw].div_(weights[draw].sum());
  }
  return weights;
}

std::vector<CircuitEdge> strongest_first(const CircuitGraph& graph, const at::Tensor& edges, const at::Tensor& scores) {
  std::vector<CircuitEdge> found;
  const auto has = edges.accessor<bool, 2>();
  for (std::int64_t to = 0; to < graph.destinations(); ++to) {
    for (std::int64_t from = 0; from < graph.sources(); ++from) {
      if (!has[to][from]) continue;
      found.push_back({from, to, graph.source_name(from), graph.destination_name(to), std::nullopt});
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
    if (nodes[node].item<bool>()) found.push_back({node, graph.source_name(node), scores[node].item<double>()});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const CircuitNode& a, const CircuitNode& b) { return std::abs(a.score) > std::abs(b.score); });
  return found;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// A share of the values, ascending by then, lies below: the linearly interpolated quantile.
double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = share * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  return values[low] + (at - static_cast<double>(low)) * (values[std::min(low + 1, values.size() - 1)] - values[low]);
}

CircuitOverlap overlap_of(const at::Tensor& a, const at::Tensor& b, std::int64_t of) {
  CircuitOverlap result;
  result.both = a.logical_and(b).sum().item<std::int64_t>();
  result.either = a.logical_or(b).sum().item<std::int64_t>();
  const auto in_a = static_cast<double>(a.sum().item<std::int64_t>()),
             in_b = static_cast<double>(b.sum().item<std::int64_t>());
  const double expected = of == 0 ? 0 : in_a * in_b / static_cast<double>(of);
  if (in_a + in_b > expected) result.by_chance = expected / (in_a + in_b - expected);
  return result;
}

/// Finds a circuit and measures it: what its parts share.
class Finder {
 public:
  Finder(const model::Transformer& transformer, const dsl::CircuitDecl& declared, const BoundCircuit& bound,
         std::uint64_t seed)
      : transformer_(transformer),
        declared_(declared),
        bound_(bound),
        seed_(seed),
        graph_(transformer.config()),
        nodes_(declared.keep.nodes) {}

  CircuitEvidence run(const CircuitAsked& asked) {
    const auto started = std::chrono::steady_clock::now();
    const PatchedPairs found_on(transformer_, bound_);
    const Scores scores = scores_of(found_on, declared_, even(bound_.pairs.size()));
    CircuitEvidence evidence;
    evidence.seconds_to_score = seconds_since(started);
    std::optional<PatchedPairs> held;
    if (!bound_.held.empty()) held.emplace(transformer_, bound_.held, bound_.probability);
    const PatchedPairs& pairs = held ? *held : found_on;

    const at::Tensor strong = edges_of(scores, 0, bound_.kept);
    evidence.kept = graph_.alive(strong);
    evidence.edges = strongest_first(graph_, evidence.kept, scores.edges.defined() ? scores.edges[0] : at::Tensor());
    evidence.parts.edges = evidence.kept;
    evidence.parts.corrupt = found_on.corrupt_means();
    if (nodes_) {
      evidence.parts.nodes = graph_.strongest_nodes(scores.nodes[0], bound_.kept);
      evidence.nodes = strongest_nodes(graph_, evidence.parts.nodes, scores.nodes[0]);
    }
    evidence.model_edges = graph_.edges();
    evidence.model_nodes = graph_.nodes();
    evidence.pruned = (strong.sum() - evidence.kept.sum()).item<std::int64_t>();
    static_cast<CircuitRuns&>(evidence) = run_circuit(pairs, evidence.kept);
    if (held) evidence.found_on = run_circuit(found_on, evidence.kept);
    curve(scores, pairs, evidence);
    if (asked.minimality) evidence.minimality = minimality(pairs, evidence);
    if (asked.stability) evidence.stability = stability(found_on, evidence);
    evidence.passes += found_on.passes() + (held ? held->passes() : 0);
    evidence.tokens += found_on.tokens() + (held ? held->tokens() : 0);
    evidence.seconds = seconds_since(started);
    return evidence;
  }

 private:
  at::Tensor edges_of(const Scores& scores, std::int64_t draw, std::int64_t count) const {
    if (nodes_) return graph_.between(graph_.strongest_nodes(scores.nodes[draw], count));
    return declared_.method.greedy ? graph_.grown(scores.edges[draw], count)
                                   : graph_.strongest(scores.edges[draw], count);
  }
  /// The parts that a draw keeps, as bools over edges or nodes.
  at::Tensor parts_of(const Scores& scores, std::int64_t draw) const {
    return nodes_ ? graph_.strongest_nodes(scores.nodes[draw], bound_.kept)
                  : graph_.alive(edges_of(scores, draw, bound_.kept));
  }

  void curve(const Scores& scores, const PatchedPairs& pairs, CircuitEvidence& evidence) const {
    const std::int64_t all = nodes_ ? graph_.nodes() : graph_.edges();
    std::vector<at::Tensor> edges;
    for (const double share : kShares) {
      const auto count = std::llround(share * static_cast<double>(all));
      if (count == 0 || (!evidence.curve.empty() && evidence.curve.back().count == count)) continue;
      evidence.curve.push_back({share, count, {}});
      edges.push_back(graph_.alive(edges_of(scores, 0, count)));
    }
    auto m = pairs.measure_each(edges);
    for (std::size_t i = 0; i < m.size(); ++i) evidence.curve[i].m = std::move(m[i]);
  }

  CircuitMinimality minimality(const PatchedPairs& pairs, const CircuitEvidence& evidence) const {
    std::vector<at::Tensor> changed;
    const auto with_node = [&](std::int64_t node, bool kept) {
      at::Tensor nodes = evidence.parts.nodes.clone();
      nodes[node] = kept;
      changed.push_back(graph_.between(nodes));
    };
    const auto with_edge = [&](std::int64_t to, std::int64_t from, bool kept) {
      changed.push_back(evidence.kept.clone());
      changed.back()[to][from] = kept;
    };
    if (nodes_) {
      for (const auto& node : evidence.nodes) with_node(node.source, false);
    } else {
      for (const auto& edge : evidence.edges) with_edge(edge.destination, edge.source, false);
    }
    const std::size_t parts = changed.size();
    const auto outside = at::nonzero(parts_outside(evidence));
    std::vector<std::int64_t> order(static_cast<std::size_t>(outside.size(0)));
    std::iota(order.begin(), order.end(), 0);
    model::NormalSource random(model::mix_seed(seed_, parts));
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    order.resize(std::min<std::size_t>(order.size(), kOutside));
    for (const std::int64_t at : order) {
      if (nodes_) {
        with_node(outside[at][0].item<std::int64_t>(), true);
      } else {
        with_edge(outside[at][0].item<std::int64_t>(), outside[at][1].item<std::int64_t>(), true);
      }
    }
    const auto m = pairs.measure_each(changed);
    const double whole = mean(evidence.circuit);
    CircuitMinimality result;
    std::vector<double> added;
    for (std::size_t i = 0; i < m.size(); ++i)
      (i < parts ? result.drops : added).push_back(std::abs(mean(m[i]) - whole));
    result.compared = std::ssize(added);
    result.threshold = quantile(added, kOutsideQuantile);
    const auto needed =
        std::count_if(result.drops.begin(), result.drops.end(), [&](double drop) { return drop > result.threshold; });
    result.needed = parts == 0 ? 0 : static_cast<double>(needed) / static_cast<double>(parts);
    return result;
  }

  /// Nodes that the circuit lacks, or edges that it lacks between those that it has: others lead nowhere.
  at::Tensor parts_outside(const CircuitEvidence& evidence) const {
    if (nodes_) return evidence.parts.nodes.logical_not();
    return graph_.between(graph_.touched(evidence.kept)).logical_and(evidence.kept.logical_not());
  }

  CircuitStability stability(const PatchedPairs& pairs, CircuitEvidence& evidence) const {
    CircuitStability result;
    result.draws = kDraws;
    at::Tensor weights = drawn_weights(bound_.pairs, seed_);
    const std::size_t lines = bound_.pairs.back().line + 1;
    for (std::size_t line = 0; lines > 1 && line < lines; ++line) {
      at::Tensor of_line = at::zeros({1, std::ssize(bound_.pairs)}, at::kDouble);
      for (std::size_t i = 0; i < bound_.pairs.size(); ++i)
        of_line[0][static_cast<std::int64_t>(i)] = bound_.pairs[i].line == line;
      if (of_line.sum().item<double>() > 0) weights = at::cat({weights, of_line / of_line.sum()});
    }
    const at::Tensor whole = nodes_ ? evidence.parts.nodes : evidence.kept;
    const Scores scores = scores_of(pairs, declared_, weights);
    std::vector<double> overlaps;
    at::Tensor held = at::zeros(whole.sizes(), at::kDouble);
    for (std::int64_t draw = 0; draw < weights.size(0); ++draw) {
      const at::Tensor parts = parts_of(scores, draw);
      const double shared = shared_parts(whole, parts);
      if (draw >= kDraws) {
        result.lines.push_back(shared);
        continue;
      }
      overlaps.push_back(shared);
      held += parts.to(at::kDouble) / static_cast<double>(kDraws);
    }
    result.overlap = mean(overlaps);
    result.low = quantile(overlaps, 0.025);
    result.high = quantile(overlaps, 0.975);
    for (const auto& node : evidence.nodes) result.inclusion.push_back(held[node.source].item<double>());
    for (const auto& edge : evidence.edges) {
      if (!nodes_) result.inclusion.push_back(held[edge.destination][edge.source].item<double>());
    }
    for (const auto ablation : {dsl::Ablation::mean, dsl::Ablation::zero}) {
      const PatchedPairs otherwise(transformer_, bound_, ablation);
      const Scores found = scores_of(otherwise, declared_, even(bound_.pairs.size()));
      result.ablations.emplace_back(dsl::ablation_name(ablation), shared_parts(whole, parts_of(found, 0)));
      evidence.passes += otherwise.passes();
      evidence.tokens += otherwise.tokens();
    }
    return result;
  }

  double shared_parts(const at::Tensor& a, const at::Tensor& b) const {
    if (!nodes_) return overlap_of(a, b, graph_.edges()).share();
    return overlap_of(a.narrow(0, 1, graph_.nodes()), b.narrow(0, 1, graph_.nodes()), graph_.nodes()).share();
  }

  const model::Transformer& transformer_;
  const dsl::CircuitDecl& declared_;
  const BoundCircuit& bound_;
  std::uint64_t seed_;
  CircuitGraph graph_;
  bool nodes_;
};

}  // namespace

CircuitEvidence find_circuit(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                             const BoundCircuit& bound, const CircuitAsked& asked, std::uint64_t seed) {
  return Finder(transformer, declared, bound, seed).run(asked);
}

CircuitRuns run_circuit(const PatchedPairs& pairs, const at::Tensor& edges) {
  return {pairs.clean(), pairs.edgeless(), pairs.measure(edges),
          pairs.measure(pairs.graph().all().logical_and(edges.logical_not()))};
}

CircuitOverlap overlap(const CircuitEvidence& a, const CircuitEvidence& b) {
  if (!a.parts.nodes.defined() || !b.parts.nodes.defined())
    return overlap_of(a.parts.edges, b.parts.edges, a.model_edges);
  const auto nodes = [&](const CircuitEvidence& of) { return of.parts.nodes.narrow(0, 1, of.model_nodes); };
  CircuitOverlap result = overlap_of(nodes(a), nodes(b), a.model_nodes);
  result.nodes = true;
  return result;
}

}  // namespace proviso::runtime

#include "runtime/circuits/find_circuit.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "runtime/circuits/circuit_space.hpp"
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

/// The numbers of these parts [parts], those of largest |score| first, ties to the earlier.
std::vector<std::int64_t> strongest_first(const at::Tensor& parts, const at::Tensor& scores) {
  const at::Tensor numbers = parts.nonzero().squeeze(1), strengths = scores.abs();
  std::vector<std::int64_t> order(numbers.const_data_ptr<std::int64_t>(),
                                  numbers.const_data_ptr<std::int64_t>() + numbers.numel());
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return strengths[a].item<double>() > strengths[b].item<double>();
  });
  return order;
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
  Finder(const model::Transformer& transformer, const Autoencoders& autoencoders, const CircuitSpace& space,
         const BoundCircuit& bound, std::uint64_t seed)
      : transformer_(transformer), autoencoders_(autoencoders), space_(space), bound_(bound), seed_(seed) {}

  CircuitEvidence run(const CircuitAsked& asked) {
    const auto started = std::chrono::steady_clock::now();
    const auto found_on = patched(bound_.pairs, dsl::Ablation::resample);
    const PartScores scores = space_.scores(*found_on, even(bound_.pairs.size()));
    CircuitEvidence evidence;
    evidence.seconds_to_score = seconds_since(started);
    std::unique_ptr<MeasuredPairs> held;
    if (!bound_.held.empty()) held = patched(bound_.held, dsl::Ablation::resample);
    const MeasuredPairs& pairs = held ? *held : *found_on;

    parts_ = space_.chosen(scores, 0, bound_.kept);
    order_ = strongest_first(parts_, scores.parts[0]);
    evidence.kept = space_.kept(parts_);
    space_.name(evidence, parts_, order_, scores, *found_on);
    evidence.pruned = bound_.kept - std::ssize(order_);
    static_cast<CircuitRuns&>(evidence) = run_circuit(pairs, evidence.kept);
    if (held) evidence.found_on = run_circuit(*found_on, evidence.kept);
    curve(scores, pairs, evidence);
    if (asked.minimality) evidence.minimality = minimality(scores, pairs, evidence);
    if (asked.stability) evidence.stability = stability(*found_on, evidence);
    evidence.passes += found_on->passes() + (held ? held->passes() : 0);
    evidence.tokens += found_on->tokens() + (held ? held->tokens() : 0);
    evidence.seconds = seconds_since(started);
    return evidence;
  }

 private:
  std::unique_ptr<MeasuredPairs> patched(const std::vector<BoundPair>& pairs, dsl::Ablation ablation) const {
    return patched_pairs(transformer_, autoencoders_, pairs, bound_.probability, ablation);
  }

  void curve(const PartScores& scores, const MeasuredPairs& pairs, CircuitEvidence& evidence) const {
    std::vector<at::Tensor> kept;
    for (const double share : kShares) {
      const auto count = std::llround(share * static_cast<double>(space_.count()));
      if (count == 0 || (!evidence.curve.empty() && evidence.curve.back().count == count)) continue;
      evidence.curve.push_back({share, count, {}});
      kept.push_back(space_.kept(space_.strongest(scores, 0, count)));
    }
    auto m = pairs.measure_each(kept);
    for (std::size_t i = 0; i < m.size(); ++i) evidence.curve[i].m = std::move(m[i]);
  }

  CircuitMinimality minimality(const PartScores& scores, const MeasuredPairs& pairs,
                               const CircuitEvidence& evidence) const {
    std::vector<at::Tensor> changed;
    const auto change = [&](std::int64_t part, bool kept) {
      const at::Tensor parts = parts_.clone();
      parts[part] = kept;
      changed.push_back(space_.kept(parts));
    };
    for (const std::int64_t part : order_) change(part, false);
    const std::size_t parts = changed.size();
    const at::Tensor outside = space_.outside(parts_, scores).nonzero().squeeze(1);
    std::vector<std::int64_t> order(static_cast<std::size_t>(outside.size(0)));
    std::iota(order.begin(), order.end(), 0);
    model::NormalSource random(model::mix_seed(seed_, parts));
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    order.resize(std::min<std::size_t>(order.size(), kOutside));
    for (const std::int64_t at : order) change(outside[at].item<std::int64_t>(), true);
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

  CircuitStability stability(const MeasuredPairs& pairs, CircuitEvidence& evidence) const {
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
    const PartScores scores = space_.scores(pairs, weights);
    std::vector<double> overlaps;
    at::Tensor held = at::zeros(parts_.sizes(), at::kDouble);
    for (std::int64_t draw = 0; draw < weights.size(0); ++draw) {
      const at::Tensor parts = space_.chosen(scores, draw, bound_.kept);
      const double shared = shared_parts(parts);
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
    for (const std::int64_t part : order_) result.inclusion.push_back(held[part].item<double>());
    for (const auto ablation : {dsl::Ablation::mean, dsl::Ablation::zero}) {
      const auto otherwise = patched(bound_.pairs, ablation);
      const PartScores found = space_.scores(*otherwise, even(bound_.pairs.size()));
      result.ablations.emplace_back(dsl::ablation_name(ablation), shared_parts(space_.chosen(found, 0, bound_.kept)));
      evidence.passes += otherwise->passes();
      evidence.tokens += otherwise->tokens();
    }
    return result;
  }

  double shared_parts(const at::Tensor& others) const { return overlap_of(parts_, others, space_.count()).share(); }

  const model::Transformer& transformer_;
  const Autoencoders& autoencoders_;
  const CircuitSpace& space_;
  const BoundCircuit& bound_;
  std::uint64_t seed_;
  at::Tensor parts_;                 // [parts] bools: the circuit
  std::vector<std::int64_t> order_;  ///< its parts, the strongest first
};

}  // namespace

CircuitEvidence find_circuit(const model::Transformer& transformer, const dsl::CircuitDecl& declared,
                             const BoundCircuit& bound, const CircuitAsked& asked, std::uint64_t seed,
                             const Autoencoders& autoencoders) {
  const auto space = circuit_space(transformer, declared, autoencoders);
  return Finder(transformer, autoencoders, *space, bound, seed).run(asked);
}

CircuitRuns run_circuit(const MeasuredPairs& pairs, const at::Tensor& kept) {
  return {pairs.clean(), pairs.edgeless(), pairs.measure(kept),
          pairs.measure(pairs.all().logical_and(kept.logical_not()))};
}

CircuitOverlap overlap(const CircuitEvidence& a, const CircuitEvidence& b) {
  if (!a.parts.nodes.defined() || !b.parts.nodes.defined())
    return overlap_of(a.parts.edges, b.parts.edges, a.model_edges);
  // Of the model's graph without the embedding, which every circuit has.
  const auto nodes = [](const CircuitEvidence& of) {
    return of.parts.nodes.narrow(0, of.parts.nodes.size(0) - of.model_nodes, of.model_nodes);
  };
  CircuitOverlap result = overlap_of(nodes(a), nodes(b), a.model_nodes);
  result.nodes = true;
  return result;
}

}  // namespace proviso::runtime

#include "runtime/features/two_sides.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "runtime/features/logistic.hpp"
#include "runtime/model/random.hpp"

namespace proviso::runtime {

namespace {

constexpr std::int64_t kFewestToHalve = 4;  // prompts of a side, so that each half has a mean of two

double cosine(const at::Tensor& a, const at::Tensor& b) {
  const double norms = (a.norm() * b.norm()).item<double>();
  return norms > 0 ? a.dot(b).item<double>() / norms : 0;
}

at::Tensor rows(const at::Tensor& x, const std::vector<std::int64_t>& which) {
  return x.index_select(0, at::tensor(which, at::kLong));
}

/// The rows of half the clusters, drawn, and those of the rest.
std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>> drawn_halves(const std::vector<std::int64_t>& clusters,
                                                                             model::NormalSource& random) {
  const std::set<std::int64_t> different(clusters.begin(), clusters.end());
  std::vector<std::int64_t> order(different.begin(), different.end());
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  const std::set<std::int64_t> first(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(order.size() / 2));
  std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>> halves;
  for (std::size_t i = 0; i < clusters.size(); ++i)
    (first.contains(clusters[i]) ? halves.first : halves.second).push_back(static_cast<std::int64_t>(i));
  return halves;
}

}  // namespace

WhiteningMatrix whitening(const at::Tensor& covariance, std::int64_t count) {
  const auto [S, shrinkage] = editing::shrunk_covariance(covariance, count);
  const auto [values, vectors] = at::linalg_eigh(S);  // ascending
  const double least =
      values[-1].item<double>() * static_cast<double>(values.size(0)) * std::numeric_limits<double>::epsilon();
  const auto held = values > std::max(least, std::numeric_limits<double>::min());
  const auto powers = at::where(held, values.clamp_min(1e-300).pow(-0.5), at::zeros_like(values));
  return {(vectors * powers).mm(vectors.t()), shrinkage};
}

WhiteningMatrix whitening(const SideVectors& sides) {
  const auto about = [](const at::Tensor& x) { return x - x.mean(0); };
  const auto within = at::cat({about(sides.p), about(sides.q)});
  const std::int64_t freedom = std::max<std::int64_t>(within.size(0) - 2, 1);
  return whitening(within.t().mm(within) / static_cast<double>(freedom), freedom);
}

at::Tensor SideDirection::raw(const SideVectors& sides) const {
  const auto white = [&](const at::Tensor& x) { return W.defined() ? x.mm(W) : x; };
  const auto p = white(sides.p), q = white(sides.q);
  const auto found =
      probe ? logistic_direction(at::cat({p, q}),
                                 at::cat({at::ones({p.size(0)}, at::kDouble), at::zeros({q.size(0)}, at::kDouble)}))
            : p.mean(0) - q.mean(0);
  return W.defined() ? W.mv(found) : found;
}

at::Tensor SideDirection::operator()(const SideVectors& sides) const {
  const auto d = raw(sides);
  return sinks.defined() ? d - sinks.t().matmul(sinks.matmul(d)) : d;
}

Stability stability(const SideDirection& direction, const SideVectors& sides,
                    const std::vector<std::int64_t>& p_clusters, const std::vector<std::int64_t>& q_clusters) {
  Stability found;
  if (std::min(sides.p.size(0), sides.q.size(0)) >= kFewestToHalve) {
    const auto half = [&](std::int64_t first) {
      const auto some = [&](const at::Tensor& x) { return x.slice(0, first, std::nullopt, 2); };
      return direction({some(sides.p), some(sides.q)});
    };
    found.halves = cosine(half(0), half(1));
  }
  const auto clusters = [](const std::vector<std::int64_t>& of) {
    return std::ssize(std::set<std::int64_t>(of.begin(), of.end()));
  };
  if (std::min(clusters(p_clusters), clusters(q_clusters)) < kFewestToHalve) return found;
  found.draws = kStabilityDraws;
  found.least = 1;
  for (std::int64_t seed = 0; seed < found.draws; ++seed) {
    model::NormalSource random(model::mix_seed(static_cast<std::uint64_t>(seed), 1));
    const auto [p1, p2] = drawn_halves(p_clusters, random);
    const auto [q1, q2] = drawn_halves(q_clusters, random);
    const double agree =
        cosine(direction({rows(sides.p, p1), rows(sides.q, q1)}), direction({rows(sides.p, p2), rows(sides.q, q2)}));
    found.mean += agree / static_cast<double>(found.draws);
    found.least = std::min(found.least, agree);
  }
  return found;
}

}  // namespace proviso::runtime

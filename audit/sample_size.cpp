#include "audit/sample_size.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <span>

#include "audit/report_words.hpp"
#include "audit/statistics.hpp"

namespace proviso::audit {

namespace {

constexpr std::int64_t kMost = 100'000;  // prompts that are thought of

/// What an estimator is given: samples, and the clusters that they lie in.
struct Sampled {
  std::int64_t samples = 0, clusters = 0;
  bool share = false;
  std::int64_t smaller_side = 0;  ///< of an area under the curve: clusters; 0 elsewhere

  bool repeats() const { return clusters < samples; }
};

Sampled sampled(const runtime::BoundPrompts& prompts, bool share) {
  std::set<std::int64_t> clusters;
  for (const auto& prompt : prompts) clusters.insert(prompt.cluster);
  return {std::ssize(prompts), std::ssize(clusters), share};
}

/// What a metric takes its samples from; nothing where it takes none.
struct SamplesOf {
  const runtime::BoundRules& bound;
  const std::vector<dsl::EditId>& edits;

  Sampled set(dsl::PromptsId id, bool share) const { return sampled(bound.prompts[id], share); }
  std::optional<Sampled> pairs(dsl::CircuitId id) const {
    runtime::BoundPrompts clean;
    for (const auto& pair : bound.circuits[id].pairs) clean.push_back(pair.clean);
    return sampled(clean, false);
  }

  std::optional<Sampled> operator()(const dsl::metric::Probability& x) const { return set(x.after, false); }
  std::optional<Sampled> operator()(const dsl::metric::Rank& x) const { return set(x.after, false); }
  std::optional<Sampled> operator()(const dsl::metric::LogitDiff& x) const { return set(x.after, false); }
  std::optional<Sampled> operator()(const dsl::metric::Accuracy& x) const { return set(x.prompts, true); }
  std::optional<Sampled> operator()(const dsl::metric::Rate& x) const { return set(x.prompts, true); }
  std::optional<Sampled> operator()(const dsl::metric::Perplexity& x) const { return set(x.prompts, false); }
  std::optional<Sampled> operator()(const dsl::metric::PerplexityRise& x) const { return set(x.prompts, false); }
  std::optional<Sampled> operator()(const dsl::metric::Kl& x) const { return set(x.prompts, false); }
  std::optional<Sampled> operator()(const dsl::metric::Mean& x) const { return set(x.on, false); }
  std::optional<Sampled> operator()(const dsl::metric::Max&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::FiringRate& x) const { return set(x.on, false); }
  std::optional<Sampled> operator()(const dsl::metric::Auroc& x) const {
    const Sampled p = set(x.p, false), q = set(x.q, false);
    return Sampled{p.samples + q.samples, p.clusters + q.clusters, false, std::min(p.clusters, q.clusters)};
  }
  std::optional<Sampled> operator()(const dsl::metric::Cosine&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::Effect& x) const {
    auto of = std::visit(*this, x.on->node);
    if (of) of->share = false, of->smaller_side = 0;  // a difference is no share
    return of;
  }
  std::optional<Sampled> operator()(const dsl::metric::Efficacy&) const {
    runtime::BoundPrompts facts;
    for (const dsl::EditId edit : edits) {
      for (const auto& fact : bound.facts[edit]) facts.push_back(fact.prompt);
    }
    return sampled(facts, true);
  }
  std::optional<Sampled> operator()(const dsl::metric::Paraphrase& x) const { return set(x.prompts, true); }
  std::optional<Sampled> operator()(const dsl::metric::Specificity& x) const { return set(x.prompts, true); }
  std::optional<Sampled> operator()(const dsl::metric::LossRecovered& x) const { return set(x.prompts, false); }
  std::optional<Sampled> operator()(const dsl::metric::Faithfulness& x) const { return pairs(x.circuit); }
  std::optional<Sampled> operator()(const dsl::metric::Completeness& x) const { return pairs(x.circuit); }
  std::optional<Sampled> operator()(const dsl::metric::Minimality&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::Stability&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::Overlap&) const { return std::nullopt; }
};

/// Wilson's interval for a share of n prompts, each a cluster of its own.
Interval interval_of(double share, std::int64_t n, double confidence) {
  std::vector<Sample> samples(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) samples[static_cast<std::size_t>(i)] = {share, i, 1};
  return wilson(samples, confidence).interval.value_or(Interval{0, 1});
}

bool keeps(const Interval& interval, dsl::Compare op, double bound) {
  switch (op) {
    case dsl::Compare::less:
      return interval.high < bound;
    case dsl::Compare::less_equal:
      return interval.high <= bound;
    case dsl::Compare::greater:
      return interval.low > bound;
    default:
      return interval.low >= bound;
  }
}

/// The fewest prompts with which a measured share decides for the bound; 0 where no number does.
std::int64_t fewest(double share, dsl::Compare op, double bound, double confidence) {
  const auto enough = [&](std::int64_t n) { return keeps(interval_of(share, n, confidence), op, bound); };
  std::int64_t high = 1;
  while (high < kMost && !enough(high)) high *= 2;
  if (!enough(high)) return 0;
  std::int64_t low = high / 2;  // not enough
  while (low + 1 < high) {
    const std::int64_t middle = low + (high - low) / 2;
    (enough(middle) ? high : low) = middle;
  }
  return high;
}

/// The fewest clusters of a side with which an area of 1 can keep a lower bound: its interval is
/// [(1 − confidence)^(1/k), 1].
std::int64_t fewest_of_a_side(double bound, double confidence) {
  if (bound <= 0) return 1;
  if (bound >= 1) return 0;
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(std::log(1 - confidence) / std::log(bound))));
}

std::string advice_of(const SampleSize& size, const Sampled& from, const dsl::Expectation& expectation) {
  const std::string at = number_text(size.confidence, true) + " confidence";
  if (from.repeats() && from.clusters < kFewestClusters) {
    return counted(from.samples, "prompt") + " in " + counted(from.clusters, "cluster") +
           " (one template or document is one): an interval needs " + std::to_string(kFewestClusters) +
           " clusters, so at any confidence it is inconclusive";
  }
  if (from.smaller_side > 0) {
    std::string text = size.at_best == 0 ? "no number of prompts can show it at " + at
                                         : "at " + at + " it can pass with " + counted(size.at_best, "prompt") +
                                               " a side or more where the sides do not overlap";
    if (size.asked && (size.at_best == 0 || from.smaller_side < size.at_best))
      text += "; with " + grouped(from.smaller_side) + " on the smaller side it cannot pass";
    return text;
  }
  const std::string within =
      from.repeats() ? ", in " + counted(from.clusters, "cluster") + ", which count as the samples" : "";
  if (!size.share) {
    if (from.repeats()) return "enough clusters for an interval, whose width the values decide" + within;
    if (size.prompts >= kFewestPromptsToBootstrap)
      return "enough prompts for an interval, whose width the values decide";
    return "an interval needs " + counted(kFewestPromptsToBootstrap, "prompt") + ", and " + grouped(size.prompts) +
           " are there: at any confidence it is inconclusive";
  }
  const bool upper = expectation.op == dsl::Compare::less || expectation.op == dsl::Compare::less_equal;
  std::string text;
  if (size.at_best == 0) {
    text = "no number of prompts can show it at " + at;
  } else {
    text = "at " + at + " it can pass with " + counted(size.at_best, "prompt") + " or more where " +
           (upper ? "none" : "all") + " of them count";
    if (size.halfway > 0)
      text += ", and takes " + grouped(size.halfway) + " where the share lies midway to " + (upper ? "0%" : "100%");
    if (size.asked && size.prompts < size.at_best) text += "; with " + grouped(size.prompts) + " it cannot pass";
  }
  return text + "; a share at the bound is known to within " + number_text(size.half_width, true) + " from " +
         counted(size.prompts, "prompt") + within;
}

}  // namespace

std::optional<SampleSize> sample_size(const dsl::Expectation& expectation, const runtime::BoundRules& bound,
                                      const std::vector<dsl::EditId>& edits) {
  const auto from = std::visit(SamplesOf{bound, edits}, expectation.metric.node);
  if (!from || from->samples == 0 || expectation.op == dsl::Compare::equal ||
      expectation.op == dsl::Compare::not_equal) {
    return std::nullopt;
  }
  SampleSize size;
  size.expectation = expectation.text;
  size.prompts = from->samples;
  size.clusters = from->clusters;
  size.confidence = expectation.confidence.value_or(0.95);
  size.asked = expectation.confidence.has_value();
  size.share = from->share;
  const bool upper = expectation.op == dsl::Compare::less || expectation.op == dsl::Compare::less_equal;
  if (from->smaller_side > 0) {
    const double area = upper ? 1 - expectation.bound : expectation.bound;
    size.at_best = fewest_of_a_side(area, size.confidence);
  } else if (size.share) {
    const double end = upper ? 0 : 1;
    size.at_best = fewest(end, expectation.op, expectation.bound, size.confidence);
    size.halfway = fewest((expectation.bound + end) / 2, expectation.op, expectation.bound, size.confidence);
    const Interval interval = interval_of(expectation.bound, size.prompts, size.confidence);
    size.half_width = (interval.high - interval.low) / 2;
  }
  size.advice = advice_of(size, *from, expectation);
  return size;
}

}  // namespace proviso::audit

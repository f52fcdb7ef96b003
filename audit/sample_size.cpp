#include "audit/sample_size.hpp"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <cstdlib>
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
  bool resampled = !share;        ///< its interval needs prompts enough to resample

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
    for (const auto& pair : bound.circuits[id].measured()) clean.push_back(pair.clean);
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
  std::optional<Sampled> operator()(const dsl::metric::FiringRate& x) const {
    auto of = set(x.on, false);
    of.resampled = false;  // Wilson's, of the shares of positions
    return of;
  }
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
  std::optional<Sampled> operator()(const dsl::metric::SparseProbing&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::Absorption& x) const { return set(x.p, true); }
  std::optional<Sampled> operator()(const dsl::metric::Tpp&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::Scr&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::Faithfulness& x) const { return pairs(x.circuit); }
  std::optional<Sampled> operator()(const dsl::metric::Completeness& x) const { return pairs(x.circuit); }
  std::optional<Sampled> operator()(const dsl::metric::Minimality&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::Stability&) const { return std::nullopt; }
  std::optional<Sampled> operator()(const dsl::metric::Overlap&) const { return std::nullopt; }
};

/// Wilson's interval for a share of n prompts; `agreeing`: of n clusters, each of prompts that agree.
Interval interval_of(double share, std::int64_t n, double confidence, bool agreeing = false) {
  std::vector<Sample> samples;
  for (std::int64_t i = 0; i < n; ++i) samples.insert(samples.end(), agreeing ? 2 : 1, {share, i, 1});
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

/// The least n that is `enough`, which more than n are, too; 0 where there is none.
template <class Enough>
std::int64_t fewest(Enough enough) {
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

bool upper(dsl::Compare op) { return op == dsl::Compare::less || op == dsl::Compare::less_equal; }

/// How probable it is that of n prompts, each counting with probability `share`, so many count that the whole interval
/// keeps the bound.
double power(std::int64_t n, double share, dsl::Compare op, double bound, double confidence) {
  const auto kept = [&](std::int64_t counting) {
    return keeps(interval_of(static_cast<double>(counting) / static_cast<double>(n), n, confidence), op, bound);
  };
  // The interval moves with the count: from one count on, or up to one, the bound is kept.
  const bool few = upper(op);
  std::int64_t good = few ? 0 : n, bad = few ? n + 1 : -1;
  if (!kept(good)) return 0;
  while (std::abs(good - bad) > 1) {
    const std::int64_t middle = (good + bad) / 2;
    (kept(middle) ? good : bad) = middle;
  }
  const boost::math::binomial counting(static_cast<double>(n), share);
  if (few) return boost::math::cdf(counting, static_cast<double>(good));
  return good == 0 ? 1 : boost::math::cdf(boost::math::complement(counting, static_cast<double>(good - 1)));
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
    if (!from.resampled || size.prompts >= kFewestPromptsToBootstrap)
      return "enough prompts for an interval, whose width the values decide";
    return "an interval needs " + counted(kFewestPromptsToBootstrap, "prompt") + ", and " + grouped(size.prompts) +
           " are there: at any confidence it is inconclusive";
  }
  const bool upper = audit::upper(expectation.op);
  const std::string unit = from.repeats() ? "cluster" : "prompt";
  std::string text;
  if (size.at_best == 0) {
    text = "no number of prompts can show it at " + at;
  } else {
    text = "at " + at + " it can pass with " + counted(size.at_best, unit) + " or more where " +
           (upper ? "none" : "all") + " of them count";
    if (size.halfway > 0)
      text += ", and with " + counted(size.halfway, from.repeats() ? "independent prompt" : "prompt") +
              " it passes four times out of five where the share lies midway to " + (upper ? "0%" : "100%");
    if (size.asked && from.clusters < size.at_best) text += "; with " + grouped(from.clusters) + " it cannot pass";
  }
  return text + "; a share at the bound is known to within " + number_text(size.half_width, true) + " from " +
         counted(size.prompts, "prompt") + within;
}

}  // namespace

std::int64_t prompts_to_show(double share, dsl::Compare op, double bound, double confidence) {
  return fewest([&](std::int64_t n) { return power(n, share, op, bound, confidence) >= kPower; });
}

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
  const bool to_zero = upper(expectation.op);
  if (from->smaller_side > 0) {
    const double area = to_zero ? 1 - expectation.bound : expectation.bound;
    size.at_best = fewest_of_a_side(area, size.confidence);
  } else if (size.share) {
    const double end = to_zero ? 0 : 1;
    size.at_best = fewest([&](std::int64_t n) {
      return keeps(interval_of(end, n, size.confidence, from->repeats()), expectation.op, expectation.bound);
    });
    size.halfway = prompts_to_show((expectation.bound + end) / 2, expectation.op, expectation.bound, size.confidence);
    const Interval interval = interval_of(expectation.bound, size.prompts, size.confidence);
    size.half_width = (interval.high - interval.low) / 2;
  }
  size.advice = advice_of(size, *from, expectation);
  return size;
}

}  // namespace proviso::audit

#include "audit/sample_size.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "audit/report_words.hpp"
#include "audit/statistics.hpp"

namespace proviso::audit {

namespace {

constexpr std::int64_t kMost = 100'000;  // prompts that are thought of

struct Sampled {
  dsl::PromptsId prompts = 0;
  bool share = false;
};

/// The set that a metric takes its sample from.
std::optional<Sampled> sampled(const dsl::Metric& metric) {
  namespace m = dsl::metric;
  struct Of {
    std::optional<Sampled> operator()(const m::Probability& x) const { return Sampled{x.after, false}; }
    std::optional<Sampled> operator()(const m::Rank& x) const { return Sampled{x.after, false}; }
    std::optional<Sampled> operator()(const m::LogitDiff& x) const { return Sampled{x.after, false}; }
    std::optional<Sampled> operator()(const m::Accuracy& x) const { return Sampled{x.prompts, true}; }
    std::optional<Sampled> operator()(const m::Rate& x) const { return Sampled{x.prompts, true}; }
    std::optional<Sampled> operator()(const m::Perplexity& x) const { return Sampled{x.prompts, false}; }
    std::optional<Sampled> operator()(const m::PerplexityRise& x) const { return Sampled{x.prompts, false}; }
    std::optional<Sampled> operator()(const m::Kl& x) const { return Sampled{x.prompts, false}; }
    std::optional<Sampled> operator()(const m::Mean& x) const { return Sampled{x.on, false}; }
    std::optional<Sampled> operator()(const m::Max&) const { return std::nullopt; }
    std::optional<Sampled> operator()(const m::FiringRate& x) const { return Sampled{x.on, false}; }
    std::optional<Sampled> operator()(const m::Auroc& x) const { return Sampled{x.p, false}; }
    std::optional<Sampled> operator()(const m::Cosine&) const { return std::nullopt; }
    std::optional<Sampled> operator()(const m::Effect& x) const {
      const auto of = sampled(*x.on);
      return of ? std::optional(Sampled{of->prompts, false}) : std::nullopt;  // a difference is no share
    }
    std::optional<Sampled> operator()(const m::Efficacy&) const { return std::nullopt; }
    std::optional<Sampled> operator()(const m::Paraphrase& x) const { return Sampled{x.prompts, true}; }
    std::optional<Sampled> operator()(const m::Specificity& x) const { return Sampled{x.prompts, true}; }
    std::optional<Sampled> operator()(const m::LossRecovered& x) const { return Sampled{x.prompts, false}; }
    std::optional<Sampled> operator()(const m::Faithfulness&) const { return std::nullopt; }
    std::optional<Sampled> operator()(const m::Completeness&) const { return std::nullopt; }
  };
  return std::visit(Of{}, metric.node);
}

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

std::string advice_of(const SampleSize& size, const dsl::Expectation& expectation) {
  const std::string at = number_text(size.confidence, true) + " confidence";
  if (!size.share) {
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
         counted(size.prompts, "prompt");
}

}  // namespace

std::optional<SampleSize> sample_size(const dsl::Expectation& expectation, const runtime::BoundRules& bound) {
  const auto from = sampled(expectation.metric);
  if (!from || expectation.op == dsl::Compare::equal || expectation.op == dsl::Compare::not_equal) return std::nullopt;
  SampleSize size;
  size.expectation = expectation.text;
  size.prompts = std::ssize(bound.prompts[from->prompts]);
  size.confidence = expectation.confidence.value_or(0.95);
  size.asked = expectation.confidence.has_value();
  size.share = from->share;
  if (size.prompts == 0) return std::nullopt;
  if (size.share) {
    const bool upper = expectation.op == dsl::Compare::less || expectation.op == dsl::Compare::less_equal;
    const double end = upper ? 0 : 1;
    size.at_best = fewest(end, expectation.op, expectation.bound, size.confidence);
    size.halfway = fewest((expectation.bound + end) / 2, expectation.op, expectation.bound, size.confidence);
    const Interval interval = interval_of(expectation.bound, size.prompts, size.confidence);
    size.half_width = (interval.high - interval.low) / 2;
  }
  size.advice = advice_of(size, expectation);
  return size;
}

}  // namespace proviso::audit

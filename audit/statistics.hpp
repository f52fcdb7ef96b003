#pragma once

// Estimates from prompts. The prompt is the unit of sampling; prompts of one template or document form a
// cluster. Wherever some cluster holds more than one prompt ("clusters repeat"), intervals are taken over
// clusters, and fewer than 3 clusters give none. How well they hold is simulated by bench/coverage.cpp and
// told in docs/statistics.md. No function here throws or returns half an interval: what cannot be had is left out, and
// `why_no_interval` says why.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace proviso::audit {

/// A bootstrap over fewer prompts than this says nothing.
inline constexpr std::int64_t kFewestPromptsToBootstrap = 8;
inline constexpr std::int64_t kFewestClusters = 3;

struct Interval {
  double low = 0, high = 0;
  bool operator==(const Interval&) const = default;
};

/// A measured number. The unit of sampling is the prompt; `n` counts prompts.
struct Estimate {
  double value = 0;
  std::int64_t n = 0;
  std::optional<Interval> interval;
  double confidence = 0.95;
  std::string why_no_interval;  ///< "fewer than 3 clusters", "fewer than 8 prompts", "a metric without sampling", …
  /// False where the number itself decides nothing, whatever confidence is asked for: a ratio whose denominator's
  /// interval covers 0.
  bool decidable = true;
  std::optional<double> p{};  ///< McNemar's exact test, of a change of paired shares
};

/// One prompt's contribution; prompts of one template or document share a cluster.
struct Sample {
  double value = 0;
  std::int64_t cluster = 0;
  double weight = 1;
};

/// Share of successes, Σ weight·value / Σ weight, with Wilson's score interval (JASA 22, 1927) at n / deff.
/// n is Kish's (Σw)² / Σw². Where clusters repeat, deff = 1 + (Σm²/Σm − 1)·ICC ≥ 1 over the cluster sizes m, with
/// the one-way ANOVA estimator of the intraclass correlation (Donner 1986), held to [0, 1], and Student's t in place
/// of the normal quantile. Where all prompts agree nothing shows the ICC, and it is taken as 1. Values between 0
/// and 1 (a share of one prompt's positions) are allowed; the interval is then wider than it need be.
Estimate wilson(std::span<const Sample> successes, double confidence);

/// Weighted mean: bootstrap-t (Efron and Tibshirani 1993, chapter 12), 2,000 resamples of prompts from a Mersenne
/// twister seeded with `seed`, the same on every platform; no end is nearer than that of Student's t. None with fewer
/// than 8 prompts, nor where so many share one value that resamples of nothing else come up in a tail's tenth or more
/// (at 95 %: fewer than 6 differ from it). Where clusters repeat: `cluster_t_mean`, widened in the same way by
/// resampling clusters where there are 8 or more. See `RatioMethod` (audit/ratio_estimate.hpp).
Estimate bootstrap_t_mean(std::span<const Sample> samples, double confidence, std::uint64_t seed);

/// Weighted mean over prompts with the linearised variance over clusters, corrected as "CR2", and Student's t on the
/// degrees that Bell and McCaffrey give it (audit/ratio_estimate.hpp); for clusters of one size, the t interval of the
/// clusters' means.
Estimate cluster_t_mean(std::span<const Sample> samples, double confidence);

/// Mean of after − before on the same prompts, in the same order: `bootstrap_t_mean` of the differences.
Estimate paired_mean_difference(std::span<const Sample> before, std::span<const Sample> after, double confidence,
                                std::uint64_t seed);

/// mean(parts) / mean(wholes) on the same prompts: bootstrap-t of the ratio, its variance linearised. Not decidable
/// where the t interval of mean(wholes) covers 0.
Estimate ratio_of_means(std::span<const Sample> parts, std::span<const Sample> wholes, double confidence,
                        std::uint64_t seed);

/// mean(after) / mean(before) − 1 on the same prompts: bootstrap-t of the ratio, its variance linearised. Not
/// decidable where the t interval of mean(before) covers 0.
Estimate relative_difference(std::span<const Sample> before, std::span<const Sample> after, double confidence,
                             std::uint64_t seed);

/// exp(Σ value / Σ weight): perplexity from total negative log-likelihoods (value) and token counts (weight). The
/// interval is bootstrap-t's (cluster-t's where clusters repeat) of the exponent.
Estimate exp_ratio(std::span<const Sample> samples, double confidence, std::uint64_t seed);

/// exp_ratio(after) / exp_ratio(before) − 1 on the same prompts, whose token counts are equal: the interval is of the
/// mean difference of log-likelihoods, so that what the prompts share cancels.
Estimate exp_ratio_rise(std::span<const Sample> before, std::span<const Sample> after, double confidence,
                        std::uint64_t seed);

/// exp_ratio(after) − exp_ratio(before) on the same prompts, whose token counts are equal: bootstrap-t (cluster-t where
/// clusters repeat) on the linearised difference, so that the error of both perplexities counts.
Estimate exp_ratio_difference(std::span<const Sample> before, std::span<const Sample> after, double confidence,
                              std::uint64_t seed);

/// Difference of paired shares (after − before). p is McNemar's exact one; the interval is Newcombe's method 10
/// (Statistics in Medicine 17, 1998, 2635–2650). Where clusters repeat, p is of the exact sign test over the clusters'
/// net changes, and the interval that of n / deff prompts, deff being the design effect of the differences, with
/// Student's t in place of the normal quantile. Where values lie between 0 and 1: `cluster_t_mean` of the differences.
Estimate mcnemar(std::span<const Sample> before, std::span<const Sample> after, double confidence);

/// Area under the ROC curve, ties at mid-rank; weights do not count. DeLong's variance (Biometrics 44, 1988), over
/// clusters Obuchowski's (Biometrics 53, 1997), on the logit scale. Clusters of the two sides are unrelated, whatever
/// their numbers. Where the sides do not overlap the variance is 0 and the interval one-sided, [(1 − confidence)^(1/k),
/// 1] for an area of 1, k the smaller side: an area of A puts k disjoint pairs in order with probability A^k.
Estimate delong_auroc(std::span<const Sample> positive, std::span<const Sample> negative, double confidence);

/// after − before of two independent measurements of which only values and intervals are known: their distances to the
/// ends, squared and added (Newcombe, Statistics in Medicine 17, 1998, 873–890, method 10; Zou and Donner, Statistics
/// in Medicine 27, 2008, 1693–1702). Wider than need be where both are of the same prompts.
Interval interval_of_difference(double before, Interval of_before, double after, Interval of_after);

/// Two-sided p of one value against a sample's mean and spread (Student's t, n − 1 degrees, variance × (1 + 1/n)).
/// Where the sample has no spread only the rank speaks: 1/(n + 1) for a value apart from it. 1 where there is no
/// telling (fewer than 2 in the sample, or a number that is not finite).
double t_test_against(double value, std::span<const double> sample);

/// Holm's step-down correction; the order of the input is kept, and NaN counts as 1.
std::vector<double> holm(std::span<const double> p_values);

}  // namespace proviso::audit

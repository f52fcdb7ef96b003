#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace proviso::audit {

struct Interval {
  double low = 0, high = 0;
};

/// A measured number. The unit of sampling is the prompt; `n` counts prompts.
struct Estimate {
  double value = 0;
  std::int64_t n = 0;
  std::optional<Interval> interval;
  double confidence = 0.95;
  std::string why_no_interval;  ///< "fewer than 3 clusters", "fewer than 8 prompts", "a metric without sampling", …
};

/// One prompt's contribution; prompts of one template or document share a cluster.
struct Sample {
  double value = 0;
  std::int64_t cluster = 0;
  double weight = 1;
};

// Each function says in its comment: the formula, its source, and when it gives no interval. (See
// statistics.cpp's tests for the closed forms and SciPy's values they are checked against.)

/// Share of successes: Wilson score interval; with clusters n is divided by the design effect.
Estimate wilson(std::span<const Sample> successes, double confidence);
/// Mean: bootstrap-t (seeded, 2,000 resamples of clusters); fewer than 8 prompts: no interval.
Estimate bootstrap_t_mean(std::span<const Sample> samples, double confidence, std::uint64_t seed);
/// Mean with clusters of more than one prompt: cluster-t; fewer than 3 clusters: no interval.
Estimate cluster_t_mean(std::span<const Sample> samples, double confidence);
/// exp(Σ value / Σ weight): perplexity from total negative log-likelihoods (value) and token counts (weight).
Estimate exp_ratio(std::span<const Sample> samples, double confidence, std::uint64_t seed);
/// Difference of paired shares (after − before): McNemar's exact p and a paired interval (Newcombe's method 10, or
/// cluster-t where clusters repeat).
struct PairedShare {
  Estimate difference;
  double p = 1;
};
PairedShare mcnemar(std::span<const Sample> before, std::span<const Sample> after, double confidence);
/// Area under the ROC curve, ties at mid-rank; DeLong's variance on the logit scale.
Estimate delong_auroc(std::span<const Sample> positive, std::span<const Sample> negative, double confidence);
/// Two-sided p of one value against a sample's mean and spread (Student's t, n − 1 degrees, variance × (1 + 1/n)).
double t_test_against(double value, std::span<const double> sample);
/// Holm's step-down correction; the order of the input is kept.
std::vector<double> holm(std::span<const double> p_values);

}  // namespace proviso::audit

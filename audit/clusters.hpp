#pragma once

// What the statistics share: samples grouped into clusters, how alike a cluster's members are, and quantiles.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "audit/statistics.hpp"

namespace proviso::audit {

inline const std::string kTooFewClusters = "fewer than 3 clusters";
inline const std::string kNoPrompts = "no prompts";
inline const std::string kNotFinite = "a value is not a finite number";
inline const std::string kAllEqual = "all values are equal";

/// Clusters are numbered anew, from 0 in order of appearance.
struct Clusters {
  explicit Clusters(std::span<const Sample> samples);
  bool repeat() const { return count < of.size(); }
  std::int64_t degrees() const { return static_cast<std::int64_t>(count) - 1; }
  bool too_few() const { return static_cast<std::int64_t>(count) < kFewestClusters; }
  /// Of one value a sample, by cluster.
  std::vector<double> sums(std::span<const double> values) const;

  std::vector<std::size_t> of;  ///< of each sample
  std::size_t count = 0;
};

/// The one-way ANOVA estimator (Donner 1986), held to [0, 1]; 1 where nothing varies.
double intraclass_correlation(std::span<const double> values, const Clusters& clusters);

/// Of the two-sided interval of that confidence.
double normal_quantile(double confidence);
double t_quantile(double degrees, double confidence);

Estimate without_interval(double value, std::size_t n, double confidence, std::string why);

}  // namespace proviso::audit

#include "audit/clusters.hpp"

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <numeric>
#include <unordered_map>
#include <utility>

namespace proviso::audit {

Clusters::Clusters(std::span<const Sample> samples) {
  std::unordered_map<std::int64_t, std::size_t> seen;
  of.reserve(samples.size());
  for (const Sample& sample : samples) of.push_back(seen.try_emplace(sample.cluster, seen.size()).first->second);
  count = seen.size();
}

std::vector<double> Clusters::sums(std::span<const double> values) const {
  std::vector<double> totals(count, 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) totals[of[i]] += values[i];
  return totals;
}

double intraclass_correlation(std::span<const double> values, const Clusters& clusters) {
  const double n = static_cast<double>(values.size()), k = static_cast<double>(clusters.count);
  const std::vector<double> sums = clusters.sums(values);
  const std::vector<double> sizes = clusters.sums(std::vector<double>(values.size(), 1.0));
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double between = 0, within = 0, squared_sizes = 0;
  for (std::size_t c = 0; c < clusters.count; ++c) {
    const double deviation = sums[c] / sizes[c] - mean;
    between += sizes[c] * deviation * deviation;
    squared_sizes += sizes[c] * sizes[c];
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double deviation = values[i] - sums[clusters.of[i]] / sizes[clusters.of[i]];
    within += deviation * deviation;
  }
  between /= k - 1;
  within /= n - k;
  const double typical_size = (n - squared_sizes / n) / (k - 1);
  const double spread = between + (typical_size - 1) * within;
  return spread > 0 ? std::clamp((between - within) / spread, 0.0, 1.0) : 1.0;
}

double normal_quantile(double confidence) {
  return boost::math::quantile(boost::math::complement(boost::math::normal(), (1 - confidence) / 2));
}

double t_quantile(double degrees, double confidence) {
  return boost::math::quantile(boost::math::complement(boost::math::students_t(degrees), (1 - confidence) / 2));
}

Estimate without_interval(double value, std::size_t n, double confidence, std::string why) {
  Estimate estimate;
  estimate.value = value;
  estimate.n = static_cast<std::int64_t>(n);
  estimate.confidence = confidence;
  estimate.why_no_interval = std::move(why);
  return estimate;
}

}  // namespace proviso::audit

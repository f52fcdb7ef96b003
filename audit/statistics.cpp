#include "audit/statistics.hpp"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "audit/clusters.hpp"
#include "audit/ratio_estimate.hpp"

namespace proviso::audit {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

const std::string kUnpaired = "before and after are not the same prompts";

bool all_finite(std::span<const Sample> samples) {
  return std::all_of(samples.begin(), samples.end(),
                     [](const Sample& s) { return std::isfinite(s.value) && std::isfinite(s.weight); });
}

// ---- means ---------------------------------------------------------------------------------------

Estimate weighted_mean(std::span<const Sample> samples, RatioMethod method, double confidence, std::uint64_t seed) {
  if (!all_finite(samples)) return without_interval(kNaN, samples.size(), confidence, kNotFinite);
  std::vector<double> numerator, denominator;
  for (const Sample& sample : samples) {
    numerator.push_back(sample.weight * sample.value);
    denominator.push_back(sample.weight);
  }
  return estimate_ratio(samples, std::move(numerator), std::move(denominator), method, confidence, seed);
}

/// after − before, prompt by prompt, with the clusters and weights of `before`; nothing where they do not pair.
std::optional<std::vector<Sample>> differences(std::span<const Sample> before, std::span<const Sample> after) {
  if (before.size() != after.size()) return std::nullopt;
  std::vector<Sample> result(before.begin(), before.end());
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (before[i].weight != after[i].weight || before[i].cluster != after[i].cluster) return std::nullopt;
    result[i].value = after[i].value - before[i].value;
  }
  return result;
}

/// Carries an estimate through a rising function.
template <class Function>
Estimate mapped(Estimate estimate, Function f) {
  estimate.value = f(estimate.value);
  if (!estimate.interval) return estimate;
  estimate.interval = Interval{f(estimate.interval->low), f(estimate.interval->high)};
  if (std::isfinite(estimate.interval->low) && std::isfinite(estimate.interval->high)) return estimate;
  estimate.interval.reset();
  estimate.why_no_interval = "the interval has no finite end";
  return estimate;
}

Estimate log_ratio(std::span<const Sample> samples, double confidence, std::uint64_t seed) {
  if (!all_finite(samples)) return without_interval(kNaN, samples.size(), confidence, kNotFinite);
  std::vector<double> numerator, denominator;
  for (const Sample& sample : samples) {
    numerator.push_back(sample.value);
    denominator.push_back(sample.weight);
  }
  return estimate_ratio(samples, std::move(numerator), std::move(denominator), RatioMethod::bootstrap_t, confidence,
                        seed);
}

// ---- shares --------------------------------------------------------------------------------------

Interval wilson_interval(double p, double n, double critical) {
  const double c = critical * critical / n;
  const double centre = (p + c / 2) / (1 + c);
  const double half = std::sqrt(c * (p * (1 - p) + c / 4)) / (1 + c);
  return {p <= 0 ? 0.0 : std::max(0.0, centre - half), p >= 1 ? 1.0 : std::min(1.0, centre + half)};
}

double design_effect(std::span<const Sample> samples, const Clusters& clusters) {
  std::vector<double> values(samples.size());
  std::transform(samples.begin(), samples.end(), values.begin(), [](const Sample& s) { return s.value; });
  double squared_sizes = 0;
  for (const double size : clusters.sums(std::vector<double>(samples.size(), 1.0))) squared_sizes += size * size;
  return 1 + (squared_sizes / static_cast<double>(samples.size()) - 1) * intraclass_correlation(values, clusters);
}

/// Twice the smaller tail of a fair coin's `heads` against `tails`.
double sign_test(std::int64_t heads, std::int64_t tails) {
  if (heads + tails == 0) return 1;
  const boost::math::binomial coin(static_cast<double>(heads + tails), 0.5);
  return std::min(1.0, 2 * boost::math::cdf(coin, static_cast<double>(std::min(heads, tails))));
}

/// Newcombe's method 10: Wilson's limits of the two shares, joined by their correlation, as of n / `effect` prompts.
Interval newcombe_paired(std::span<const Sample> before, std::span<const Sample> after, double effect,
                         double critical) {
  double both = 0, lost = 0, won = 0, neither = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const bool was = before[i].value == 1, is = after[i].value == 1;
    (was ? (is ? both : lost) : (is ? won : neither)) += 1 / effect;
  }
  const double n = static_cast<double>(before.size()) / effect;
  const double p_after = (both + won) / n, p_before = (both + lost) / n;
  const Interval w_after = wilson_interval(p_after, n, critical), w_before = wilson_interval(p_before, n, critical);
  const double margins = (both + lost) * (won + neither) * (both + won) * (lost + neither);
  double excess = both * neither - lost * won;
  if (excess > 0) excess = std::max(0.0, excess - n / 2);
  const double phi = margins > 0 ? excess / std::sqrt(margins) : 0;
  const auto join = [phi](double a, double b) { return std::sqrt(std::max(0.0, a * a - 2 * phi * a * b + b * b)); };
  const double difference = p_after - p_before;
  return {difference - join(p_after - w_after.low, w_before.high - p_before),
          difference + join(w_after.high - p_after, p_before - w_before.low)};
}

// ---- areas under the curve -------------------------------------------------------------------------

std::vector<double> mid_ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = (static_cast<double>(begin + end) + 1) / 2;
  }
  return ranks;
}

/// Of each of `own`: the share of `all` but `own` that lies below it, ties by half.
std::vector<double> placements(std::span<const double> own, std::span<const double> ranks_in_all, std::size_t others) {
  std::vector<double> result = mid_ranks(own);
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = (ranks_in_all[i] - result[i]) / static_cast<double>(others);
  return result;
}

double placement_variance(std::vector<double> placement, double mean, const Clusters& clusters) {
  for (double& value : placement) value -= mean;
  const std::vector<double> sums = clusters.sums(placement);
  const double k = static_cast<double>(clusters.count), n = static_cast<double>(placement.size());
  return k / (k - 1) * std::inner_product(sums.begin(), sums.end(), sums.begin(), 0.0) / (n * n);
}

}  // namespace

Estimate wilson(std::span<const Sample> successes, double confidence) {
  const std::size_t n = successes.size();
  if (n == 0) return without_interval(kNaN, n, confidence, kNoPrompts);
  if (!all_finite(successes)) return without_interval(kNaN, n, confidence, kNotFinite);
  double total = 0, weights = 0, squared_weights = 0;
  for (const Sample& sample : successes) {
    total += sample.weight * sample.value;
    weights += sample.weight;
    squared_weights += sample.weight * sample.weight;
  }
  Estimate estimate = without_interval(total / weights, n, confidence, "");
  if (!std::isfinite(estimate.value)) return without_interval(kNaN, n, confidence, kNotFinite);
  const double effective = weights * weights / squared_weights;
  const Clusters clusters(successes);
  if (!clusters.repeat()) {
    estimate.interval = wilson_interval(estimate.value, effective, normal_quantile(confidence));
  } else if (clusters.too_few()) {
    estimate.why_no_interval = kTooFewClusters;
  } else {
    estimate.interval = wilson_interval(estimate.value, effective / design_effect(successes, clusters),
                                        t_quantile(static_cast<double>(clusters.degrees()), confidence));
  }
  return estimate;
}

Estimate bootstrap_t_mean(std::span<const Sample> samples, double confidence, std::uint64_t seed) {
  return weighted_mean(samples, RatioMethod::bootstrap_t, confidence, seed);
}

Estimate cluster_t_mean(std::span<const Sample> samples, double confidence) {
  return weighted_mean(samples, RatioMethod::student_t, confidence, 0);
}

Estimate paired_mean_difference(std::span<const Sample> before, std::span<const Sample> after, double confidence,
                                std::uint64_t seed) {
  const auto changes = differences(before, after);
  if (!changes) return without_interval(kNaN, before.size(), confidence, kUnpaired);
  return bootstrap_t_mean(*changes, confidence, seed);
}

namespace {

/// `undecided` says why where the denominator may be 0.
Estimate ratio(std::span<const Sample> parts, std::span<const Sample> wholes, double confidence, std::uint64_t seed,
               const char* undecided) {
  if (!all_finite(parts) || !all_finite(wholes)) return without_interval(kNaN, wholes.size(), confidence, kNotFinite);
  std::vector<double> numerator, denominator;
  for (std::size_t i = 0; i < wholes.size(); ++i) {
    numerator.push_back(wholes[i].weight * parts[i].value);
    denominator.push_back(wholes[i].weight * wholes[i].value);
  }
  Estimate estimate =
      estimate_ratio(wholes, std::move(numerator), std::move(denominator), RatioMethod::bootstrap_t, confidence, seed);
  const Estimate base = cluster_t_mean(wholes, confidence);
  const bool covers_0 = base.interval ? base.interval->low <= 0 && base.interval->high >= 0 : base.value == 0;
  if (covers_0) {
    estimate.interval.reset();
    estimate.why_no_interval = undecided;
    estimate.decidable = false;
  }
  return estimate;
}

}  // namespace

Estimate ratio_of_means(std::span<const Sample> parts, std::span<const Sample> wholes, double confidence,
                        std::uint64_t seed) {
  if (parts.size() != wholes.size()) return without_interval(kNaN, wholes.size(), confidence, kUnpaired);
  return ratio(parts, wholes, confidence, seed, "the interval of the denominator covers 0");
}

Estimate relative_difference(std::span<const Sample> before, std::span<const Sample> after, double confidence,
                             std::uint64_t seed) {
  const auto changes = differences(before, after);
  if (!changes) return without_interval(kNaN, before.size(), confidence, kUnpaired);
  return ratio(*changes, before, confidence, seed, "the interval of the value before covers 0");
}

Estimate exp_ratio(std::span<const Sample> samples, double confidence, std::uint64_t seed) {
  return mapped(log_ratio(samples, confidence, seed), [](double x) { return std::exp(x); });
}

Estimate exp_ratio_rise(std::span<const Sample> before, std::span<const Sample> after, double confidence,
                        std::uint64_t seed) {
  const auto changes = differences(before, after);
  if (!changes) return without_interval(kNaN, before.size(), confidence, kUnpaired);
  return mapped(log_ratio(*changes, confidence, seed), [](double x) { return std::expm1(x); });
}

Estimate exp_ratio_difference(std::span<const Sample> before, std::span<const Sample> after, double confidence,
                              std::uint64_t seed) {
  if (!differences(before, after)) return without_interval(kNaN, before.size(), confidence, kUnpaired);
  if (!all_finite(before) || !all_finite(after)) return without_interval(kNaN, before.size(), confidence, kNotFinite);
  const auto total = [](std::span<const Sample> samples, auto part) {
    return std::accumulate(samples.begin(), samples.end(), 0.0,
                           [&](double sum, const Sample& s) { return sum + part(s); });
  };
  const auto value = [](const Sample& s) { return s.value; };
  const double weight = total(before, [](const Sample& s) { return s.weight; });
  const double log_before = total(before, value) / weight, log_after = total(after, value) / weight;
  const double was = std::exp(log_before), is = std::exp(log_after);
  // A ratio whose value is the difference, and whose residuals are those of its linearisation.
  std::vector<double> numerator, denominator;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double w = before[i].weight;
    numerator.push_back((is - was) * w + is * (after[i].value - log_after * w) -
                        was * (before[i].value - log_before * w));
    denominator.push_back(w);
  }
  return estimate_ratio(before, std::move(numerator), std::move(denominator), RatioMethod::bootstrap_t, confidence,
                        seed);
}

Estimate mcnemar(std::span<const Sample> before, std::span<const Sample> after, double confidence) {
  const auto changes = differences(before, after);
  if (!changes) return without_interval(kNaN, before.size(), confidence, kUnpaired);
  Estimate difference = cluster_t_mean(*changes, confidence);
  if (!std::isfinite(difference.value)) return difference;

  std::vector<double> values(changes->size());
  std::transform(changes->begin(), changes->end(), values.begin(), [](const Sample& s) { return s.value; });
  const Clusters clusters(*changes);
  std::int64_t rose = 0, fell = 0;
  for (const double change : clusters.sums(values)) {
    rose += change > 0;
    fell += change < 0;
  }
  difference.p = sign_test(rose, fell);

  const auto is_share_of_one = [](const Sample& s) { return (s.value == 0 || s.value == 1) && s.weight == 1; };
  if ((!clusters.repeat() || !clusters.too_few()) && std::all_of(before.begin(), before.end(), is_share_of_one) &&
      std::all_of(after.begin(), after.end(), is_share_of_one)) {
    const double critical = clusters.repeat() ? t_quantile(static_cast<double>(clusters.degrees()), confidence)
                                              : normal_quantile(confidence);
    difference.interval =
        newcombe_paired(before, after, clusters.repeat() ? design_effect(*changes, clusters) : 1, critical);
    difference.why_no_interval.clear();
  }
  return difference;
}

Estimate delong_auroc(std::span<const Sample> positive, std::span<const Sample> negative, double confidence) {
  const std::size_t n = positive.size() + negative.size();
  if (positive.empty() || negative.empty()) return without_interval(kNaN, n, confidence, kNoPrompts);
  if (!all_finite(positive) || !all_finite(negative)) return without_interval(kNaN, n, confidence, kNotFinite);

  std::vector<double> values;
  for (const Sample& sample : positive) values.push_back(sample.value);
  for (const Sample& sample : negative) values.push_back(sample.value);
  const std::span<const double> all(values);
  const std::vector<double> ranks = mid_ranks(all);
  const std::span<const double> rank(ranks);
  const std::size_t m = positive.size();
  const std::vector<double> above = placements(all.first(m), rank.first(m), negative.size());
  std::vector<double> below = placements(all.subspan(m), rank.subspan(m), m);
  for (double& share : below) share = 1 - share;

  Estimate estimate =
      without_interval(std::accumulate(above.begin(), above.end(), 0.0) / static_cast<double>(m), n, confidence, "");
  const double area = estimate.value;
  const Clusters of_positive(positive), of_negative(negative);
  const bool over_clusters = of_positive.repeat() || of_negative.repeat();
  if (over_clusters && (of_positive.too_few() || of_negative.too_few())) {
    estimate.why_no_interval = kTooFewClusters;
    return estimate;
  }
  const std::size_t smaller = std::min(of_positive.count, of_negative.count);
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (area == 0 || area == 1) {
    const double bound = std::pow(1 - confidence, 1 / static_cast<double>(smaller));
    estimate.interval = area == 1 ? Interval{bound, 1} : Interval{0, 1 - bound};
  } else if (*low == *high) {
    estimate.why_no_interval = kAllEqual;
  } else if (smaller < 2) {
    estimate.why_no_interval = "fewer than 2 prompts on a side";
  } else {
    const double variance = placement_variance(above, area, of_positive) + placement_variance(below, area, of_negative);
    const double critical =
        over_clusters ? t_quantile(static_cast<double>(smaller) - 1, confidence) : normal_quantile(confidence);
    const double logit = std::log(area / (1 - area));
    const double half = critical * std::sqrt(variance) / (area * (1 - area));
    const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
    estimate.interval = Interval{sigmoid(logit - half), sigmoid(logit + half)};
  }
  return estimate;
}

Interval interval_of_difference(double before, Interval of_before, double after, Interval of_after) {
  const double difference = after - before;
  return {difference - std::hypot(after - of_after.low, of_before.high - before),
          difference + std::hypot(of_after.high - after, before - of_before.low)};
}

double t_test_against(double value, std::span<const double> sample) {
  if (sample.size() < 2) return 1;
  const double n = static_cast<double>(sample.size());
  const double mean = std::accumulate(sample.begin(), sample.end(), 0.0) / n;
  double squares = 0;
  for (const double x : sample) squares += (x - mean) * (x - mean);
  if (!std::isfinite(value) || !std::isfinite(squares)) return 1;
  const double error = std::sqrt(squares / (n - 1) * (1 + 1 / n));
  if (error == 0) return value == mean ? 1 : 1 / (n + 1);  // without a spread only the rank speaks
  const boost::math::students_t t(n - 1);
  return 2 * boost::math::cdf(boost::math::complement(t, std::abs(value - mean) / error));
}

std::vector<double> holm(std::span<const double> p_values) {
  std::vector<double> corrected(p_values.begin(), p_values.end());
  std::replace_if(
      corrected.begin(), corrected.end(), [](double p) { return std::isnan(p); }, 1.0);
  std::vector<std::size_t> order(corrected.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return corrected[a] < corrected[b]; });
  double running = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const double left = static_cast<double>(order.size() - i);
    running = std::max(running, std::min(1.0, left * corrected[order[i]]));
    corrected[order[i]] = running;
  }
  return corrected;
}

}  // namespace proviso::audit

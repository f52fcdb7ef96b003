#include "audit/ratio_estimate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <utility>

#include "audit/clusters.hpp"

namespace proviso::audit {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kResamples = 2000;

double sum_of(std::span<const double> values) { return std::accumulate(values.begin(), values.end(), 0.0); }

/// Σ numerator / Σ denominator over independent units.
struct Ratio {
  Ratio(std::span<const double> numerator, std::vector<double> denominator)
      : denominators(std::move(denominator)),
        total(sum_of(denominators)),
        value(sum_of(numerator) / total),
        residuals(numerator.begin(), numerator.end()) {
    double size = 0;
    for (std::size_t i = 0; i < residuals.size(); ++i) {
      size += std::abs(residuals[i]);
      residuals[i] -= value * denominators[i];
    }
    // What rounding alone leaves of residuals that are all 0.
    rounding = 64 * std::numeric_limits<double>::epsilon() * size;
  }

  double standard_error() const {
    const double k = static_cast<double>(residuals.size());
    double squares = 0;
    for (const double residual : residuals) squares += residual * residual;
    const double error = std::sqrt(k / (k - 1) * squares);
    return error <= rounding ? 0 : error / std::abs(total);
  }

  std::vector<double> denominators;
  double total, value;
  std::vector<double> residuals;  ///< numerator − value · denominator
  double rounding = 0;
};

/// How many prompts have the commonest of the values.
std::size_t commonest(const std::vector<double>& numerator, const std::vector<double>& denominator) {
  std::vector<double> values(numerator.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = denominator[i] == 0 ? numerator[i] : numerator[i] / denominator[i];
  if (!std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); })) return 1;
  std::sort(values.begin(), values.end());
  const double rounding = 1e-12 * std::max(std::abs(values.front()), std::abs(values.back()));
  std::size_t most = 1;
  for (std::size_t i = 1, run = 1; i < values.size(); ++i) {
    run = values[i] - values[i - 1] <= rounding ? run + 1 : 1;
    most = std::max(most, run);
  }
  return most;
}

/// Whether a bootstrap-t's ends would be made of resamples without spread: those that draw nothing but the one value
/// that `equal` of n prompts share. They must be rarer than a tenth of a tail. (A rule that changed three texts of
/// eighty and left the others as they were shows by how much on average, and not how surely.)
bool lacks_spread(std::size_t equal, std::size_t n, double confidence) {
  const double share = static_cast<double>(equal) / static_cast<double>(n);
  return std::pow(share, static_cast<double>(n)) > (1 - confidence) / 20;
}

/// Between the order statistics at p (B + 1), as for the ranks of B resamples.
double quantile_of_sorted(const std::vector<double>& sorted, double p) {
  const double last = static_cast<double>(sorted.size() - 1);
  const double position = std::clamp(p * static_cast<double>(sorted.size() + 1) - 1, 0.0, last);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = position - static_cast<double>(below);
  return share == 0 ? sorted[below] : sorted[below] + share * (sorted[above] - sorted[below]);
}

std::optional<Interval> bootstrap_t(const Ratio& ratio, double error, double confidence, std::uint64_t seed) {
  const std::uint64_t n = ratio.residuals.size();
  std::mt19937_64 generator(seed);
  std::vector<double> t(kResamples);
  for (double& studentised : t) {
    double sum_r = 0, sum_d = 0, rr = 0, rd = 0, dd = 0;
    std::uint64_t bits = 0;
    for (std::uint64_t i = 0; i < n; ++i) {
      // Two draws of 32 bits from one word; std::uniform_int_distribution differs between libraries.
      bits = i % 2 == 0 ? generator() : bits << 32;
      const std::uint64_t drawn = ((bits >> 32) * n) >> 32;
      const double r = ratio.residuals[drawn], d = ratio.denominators[drawn];
      sum_r += r;
      sum_d += d;
      rr += r * r;
      rd += r * d;
      dd += d * d;
    }
    // The resample's ratio less the estimate, and its residuals' squares about that.
    const double shift = sum_r / sum_d;
    const double squares = rr - 2 * shift * rd + shift * shift * dd;
    const double scale = static_cast<double>(n) / static_cast<double>(n - 1);
    const bool spreads = squares > 1e-12 * rr;
    if (spreads)
      studentised = shift * std::abs(sum_d) / std::sqrt(scale * squares);
    else
      studentised = shift == 0 ? 0 : std::copysign(kInfinity, shift);
    if (std::isnan(studentised)) studentised = 0;
  }
  std::sort(t.begin(), t.end());
  const double tail = (1 - confidence) / 2;
  const Interval interval{ratio.value - quantile_of_sorted(t, 1 - tail) * error,
                          ratio.value - quantile_of_sorted(t, tail) * error};
  if (!std::isfinite(interval.low) || !std::isfinite(interval.high)) return std::nullopt;
  return interval;
}

struct StudentT {
  double error = 0, degrees = 0;
};

/// "CR2" and its degrees. The working model of the residuals: those of a cluster correlate as `icc` says, and spread as
/// the denominators do. Nothing where one cluster weighs as much as all.
///
/// With h a cluster's share of the total, V its variance under that model and v = Σ V, the corrected residual sums have
/// the covariance g_cd = (δ V_c − h_d V_c − h_c V_d + h_c h_d v) / √((1 − h_c)(1 − h_d)), and degrees = (tr g)² / tr
/// g².
std::optional<StudentT> student_t(const Ratio& ratio, std::span<const double> variances) {
  const double v = sum_of(variances);
  double squares = 0, trace = 0, uu = 0, hh = 0, uh = 0, own = 0, off = 0;
  for (std::size_t c = 0; c < variances.size(); ++c) {
    const double h = ratio.denominators[c] / ratio.total;
    if (h >= 1) return std::nullopt;
    const double b = 1 / (1 - h), u = variances[c] - h * v / 2;  // off the diagonal g is −√(b b') (h' u + h u')
    squares += b * ratio.residuals[c] * ratio.residuals[c];
    const double diagonal = b * (variances[c] - 2 * h * u);
    trace += diagonal;
    own += diagonal * diagonal;
    uu += b * u * u;
    hh += b * h * h;
    uh += b * h * u;
    off += b * b * 4 * h * h * u * u;  // what the double sum counts on the diagonal
  }
  const double all = own + 2 * (uu * hh + uh * uh) - off;
  const double most = static_cast<double>(variances.size()) - 1;
  const double degrees = all > 0 ? trace * trace / all : most;
  const double error = std::sqrt(squares);
  return StudentT{error <= ratio.rounding ? 0 : error / std::abs(ratio.total), std::clamp(degrees, 1.0, most)};
}

/// Of the residual sums of clusters, whose members correlate as the residuals show.
std::vector<double> working_variances(const Ratio& of_prompts, const Clusters& clusters) {
  const double icc = clusters.repeat() ? intraclass_correlation(of_prompts.residuals, clusters) : 0;
  std::vector<double> squares;
  for (const double d : of_prompts.denominators) squares.push_back(d * d);
  std::vector<double> variances = clusters.sums(squares);
  const std::vector<double> totals = clusters.sums(of_prompts.denominators);
  for (std::size_t c = 0; c < variances.size(); ++c)
    variances[c] = (1 - icc) * variances[c] + icc * totals[c] * totals[c];
  return variances;
}

}  // namespace

Estimate estimate_ratio(std::span<const Sample> samples, std::vector<double> numerator, std::vector<double> denominator,
                        RatioMethod method, double confidence, std::uint64_t seed) {
  const std::size_t n = samples.size();
  if (n == 0) return without_interval(kNaN, n, confidence, kNoPrompts);
  const std::size_t equal = commonest(numerator, denominator);
  const Ratio of_prompts(numerator, std::move(denominator));
  if (!std::isfinite(of_prompts.value)) return without_interval(kNaN, n, confidence, kNotFinite);
  const Clusters clusters(samples);
  Estimate estimate = without_interval(of_prompts.value, n, confidence, "");
  if ((method == RatioMethod::student_t || clusters.repeat()) && clusters.too_few()) {
    estimate.why_no_interval = kTooFewClusters;
    return estimate;
  }
  const bool enough = static_cast<std::int64_t>(clusters.count) >= kFewestPromptsToBootstrap;
  if (method == RatioMethod::bootstrap_t && !clusters.repeat() && !enough) {
    estimate.why_no_interval = "fewer than 8 prompts";
    return estimate;
  }

  const Ratio ratio(clusters.sums(numerator), clusters.sums(of_prompts.denominators));
  const auto t = student_t(ratio, working_variances(of_prompts, clusters));
  const double error = ratio.standard_error();
  if (error == 0) {
    estimate.why_no_interval = kAllEqual;
    return estimate;
  }
  if (!t) {
    estimate.why_no_interval = "one cluster weighs as much as all";
    return estimate;
  }
  const double half = t_quantile(t->degrees, confidence) * t->error;
  const Interval student{ratio.value - half, ratio.value + half};
  if (method == RatioMethod::student_t || !enough) {
    estimate.interval = student;
    return estimate;
  }
  if (!clusters.repeat() && lacks_spread(equal, n, confidence)) {
    estimate.why_no_interval = "too few prompts differ from the one value of all others";
    return estimate;
  }
  const auto resampled = bootstrap_t(ratio, error, confidence, seed);
  if (resampled)
    estimate.interval = Interval{std::min(resampled->low, student.low), std::max(resampled->high, student.high)};
  else if (clusters.repeat())
    estimate.interval = student;
  else
    estimate.why_no_interval = "too few different values for a bootstrap";
  return estimate;
}

}  // namespace proviso::audit

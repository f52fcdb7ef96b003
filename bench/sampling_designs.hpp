#pragma once

// Samples whose truth is known, as audits draw them: populations from even to heavy-tailed, prompts one by one or in
// clusters that agree. `bench/coverage.cpp` measures the statistics of audits on them, and a unit test holds the worst.

#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "audit/statistics.hpp"

namespace proviso::sampling {

/// Random numbers equal on every platform.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : generator_(seed) {}

  std::uint64_t bits() { return generator_(); }
  /// In (0, 1).
  double uniform() { return (static_cast<double>(generator_() >> 11) + 0.5) * 0x1p-53; }
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * M_PI * uniform()); }
  double exponential() { return -std::log(uniform()); }
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(uniform() * static_cast<double>(high - low + 1));
  }

  /// Gamma(shape, 1), by Marsaglia and Tsang (ACM TOMS 26, 2000).
  double gamma(double shape) {
    if (shape < 1) return gamma(shape + 1) * std::pow(uniform(), 1 / shape);
    const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal(), v = std::pow(1 + c * x, 3);
      if (v > 0 && std::log(uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
    }
  }
  double beta(double a, double b) {
    const double x = gamma(a), y = gamma(b);
    return x + y > 0 ? x / (x + y) : (uniform() < a / (a + b) ? 1.0 : 0.0);
  }

 private:
  std::mt19937_64 generator_;
};

/// Sizes of the clusters that n prompts come in.
struct Layout {
  enum class Kind { single, equal, unequal } kind = Kind::single;
  double icc = 0;  ///< intraclass correlation of the values

  std::vector<std::int64_t> sizes(std::int64_t n) const {
    static constexpr std::int64_t kUnequal[] = {1, 2, 3, 4, 10};  // 4 on average
    std::vector<std::int64_t> sizes;
    for (std::int64_t left = n, i = 0; left > 0; ++i) {
      const std::int64_t size = kind == Kind::single ? 1 : kind == Kind::equal ? 4 : kUnequal[i % 5];
      sizes.push_back(std::min(size, left));
      left -= sizes.back();
    }
    return sizes;
  }
  std::string text() const {
    if (kind == Kind::single) return "independent";
    char icc_text[16];
    std::snprintf(icc_text, sizeof icc_text, "%.1f", icc);
    return std::string(kind == Kind::equal ? "clusters of 4" : "clusters of 1 to 10") + ", ICC " + icc_text;
  }
};

/// Successes with rate p, beta-binomial within clusters.
inline std::vector<audit::Sample> shares(Draws& draws, double p, std::int64_t n, const Layout& layout) {
  std::vector<audit::Sample> samples;
  std::int64_t cluster = 0;
  for (const std::int64_t size : layout.sizes(n)) {
    const double scale = layout.icc > 0 ? 1 / layout.icc - 1 : 0;
    const double rate = layout.icc > 0 ? draws.beta(p * scale, (1 - p) * scale) : p;
    for (std::int64_t i = 0; i < size; ++i) samples.push_back({draws.uniform() < rate ? 1.0 : 0.0, cluster});
    ++cluster;
  }
  return samples;
}

/// What a prompt's number is distributed as; all have mean `mean_of`.
enum class Population { normal, skewed, lognormal, heavy };

inline const char* name_of(Population population) {
  switch (population) {
    case Population::normal:
      return "normal";
    case Population::skewed:
      return "lognormal, σ 0.5";  // skewness 1.75
    case Population::lognormal:
      return "lognormal, σ 1";  // skewness 6.2
    case Population::heavy:
      return "Student's t, 3 degrees";
  }
  return "";
}

inline double sigma_of(Population population) { return population == Population::skewed ? 0.5 : 1; }

inline double mean_of(Population population) {
  const bool log = population == Population::skewed || population == Population::lognormal;
  return log ? std::exp(sigma_of(population) * sigma_of(population) / 2) : 0;
}

/// Values of n prompts, with the layout's ICC: exact for each population.
inline std::vector<audit::Sample> values(Draws& draws, Population population, std::int64_t n, const Layout& layout) {
  const double sigma = sigma_of(population);
  // The correlation of the normal numbers under a lognormal one.
  const double under = std::log1p(layout.icc * std::expm1(sigma * sigma)) / (sigma * sigma);
  const auto t3 = [&] {
    const double a = draws.normal(), b = draws.normal(), c = draws.normal();
    return draws.normal() / std::sqrt((a * a + b * b + c * c) / 3);
  };
  std::vector<audit::Sample> samples;
  std::int64_t cluster = 0;
  for (const std::int64_t size : layout.sizes(n)) {
    const bool heavy = population == Population::heavy;
    const double common = heavy ? t3() : draws.normal();
    for (std::int64_t i = 0; i < size; ++i) {
      const double own = heavy ? t3() : draws.normal();
      const double rho = heavy || population == Population::normal ? layout.icc : under;
      double value = std::sqrt(rho) * common + std::sqrt(1 - rho) * own;
      if (mean_of(population) != 0) value = std::exp(sigma * value);
      samples.push_back({value, cluster});
    }
    ++cluster;
  }
  return samples;
}

}  // namespace proviso::sampling

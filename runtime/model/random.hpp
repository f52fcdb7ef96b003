#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <random>

namespace proviso::model {

/// Uniform and standard normal values that are the same on every platform (the library's distributions are not).
class NormalSource {
 public:
  explicit NormalSource(std::uint64_t seed) : engine_(seed) {}

  double uniform() { return (static_cast<double>(engine_() >> 11) + 0.5) * 0x1.0p-53; }  // in (0, 1)
  /// One of 0 … count − 1.
  std::size_t below(std::size_t count) {
    return std::min(count - 1, static_cast<std::size_t>(uniform() * static_cast<double>(count)));
  }
  double next() { return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()); }

 private:
  std::mt19937_64 engine_;
};

/// One seed out of several parts (SplitMix64's finaliser over each).
template <class... Parts>
std::uint64_t mix_seed(Parts... parts) {
  std::uint64_t seed = 0x9e3779b97f4a7c15;
  const auto mix = [&](std::uint64_t part) {
    seed += part + 0x9e3779b97f4a7c15;
    seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
    seed = (seed ^ (seed >> 27)) * 0x94d049bb133111eb;
    seed ^= seed >> 31;
  };
  (mix(static_cast<std::uint64_t>(parts)), ...);
  return seed;
}

}  // namespace proviso::model

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>

namespace proviso::runtime {

/// Told how far a stage is; `total` is 0 where nobody knows. A stage without a name ends them. May be empty.
using Progress = std::function<void(std::string_view stage, std::int64_t done, std::int64_t total)>;

inline double seconds_since(std::chrono::steady_clock::time_point then) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - then).count();
}

}  // namespace proviso::runtime

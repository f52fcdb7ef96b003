#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace proviso::model {

/// About as many tokens as one pass takes: more save no time and cost memory.
inline constexpr std::int64_t kTokensInPass = 2048;

/// `count` rows, the i-th of `length(i)` tokens, cut into consecutive groups [begin, end) for one pass each; a row that
/// is longer than a pass has one of its own.
template <class Length>
std::vector<std::pair<std::size_t, std::size_t>> pass_groups(std::size_t count, Length length) {
  std::vector<std::pair<std::size_t, std::size_t>> groups;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (groups.empty() || tokens + length(i) > kTokensInPass) {
      groups.emplace_back(i, i);
      tokens = 0;
    }
    tokens += length(i);
    groups.back().second = i + 1;
  }
  return groups;
}

}  // namespace proviso::model

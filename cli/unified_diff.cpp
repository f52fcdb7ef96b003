#include "cli/unified_diff.hpp"

#include <algorithm>
#include <vector>

namespace proviso::cli {

namespace {

constexpr std::size_t kContext = 3;

/// A line with its break, which the last one may lack.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return lines;
}

struct Step {
  char mark;  // ' ' stays, '-' goes, '+' comes
  std::string_view line;
};

/// The shortest way from one list of lines to the other (Myers, "An O(ND) difference algorithm", 1986). Beyond kMost
/// changes the rest is shown as gone and come again, so that the time stays bounded.
std::vector<Step> steps(const std::vector<std::string_view>& before, const std::vector<std::string_view>& after) {
  constexpr std::ptrdiff_t kMost = 2000;
  const auto n = static_cast<std::ptrdiff_t>(before.size()), m = static_cast<std::ptrdiff_t>(after.size());
  const auto same = [&](std::ptrdiff_t x, std::ptrdiff_t y) {
    return x < n && y < m && before[static_cast<std::size_t>(x)] == after[static_cast<std::size_t>(y)];
  };
  // furthest[d][k + d]: how far into `before` d changes lead on the diagonal x - y = k.
  std::vector<std::vector<std::ptrdiff_t>> furthest;
  bool reached = false;
  for (std::ptrdiff_t d = 0; d <= std::min(n + m, kMost) && !reached; ++d) {
    std::vector<std::ptrdiff_t> row(static_cast<std::size_t>(2 * d + 1), -1);
    for (std::ptrdiff_t k = -d; k <= d && !reached; k += 2) {
      const auto last = [&](std::ptrdiff_t other) {
        return d == 0 || std::abs(other) > d - 1 ? std::ptrdiff_t{-1}
                                                 : furthest.back()[static_cast<std::size_t>(other + d - 1)];
      };
      std::ptrdiff_t x = d == 0 ? 0 : std::max(last(k + 1), last(k - 1) + 1);
      if (d > 0 && last(k - 1) < 0 && last(k + 1) < 0) continue;
      if (x > n || x - k > m) continue;
      while (same(x, x - k)) ++x;
      row[static_cast<std::size_t>(k + d)] = x;
      reached = x >= n && x - k >= m;
    }
    furthest.push_back(std::move(row));
  }

  std::vector<Step> way;
  if (!reached) {
    for (const auto line : before) way.push_back({'-', line});
    for (const auto line : after) way.push_back({'+', line});
    return way;
  }
  std::ptrdiff_t x = n, y = m;
  for (auto d = static_cast<std::ptrdiff_t>(furthest.size()) - 1; d > 0; --d) {
    const std::vector<std::ptrdiff_t>& row = furthest[static_cast<std::size_t>(d - 1)];
    const auto last = [&](std::ptrdiff_t k) {
      return std::abs(k) > d - 1 ? std::ptrdiff_t{-1} : row[static_cast<std::size_t>(k + d - 1)];
    };
    const std::ptrdiff_t k = x - y;
    const bool came = last(k + 1) >= 0 && last(k + 1) > last(k - 1);  // by a line of `after`
    const std::ptrdiff_t from_k = came ? k + 1 : k - 1;
    const std::ptrdiff_t from_x = last(from_k), from_y = from_x - from_k;
    while (x > from_x + (came ? 0 : 1) || y > from_y + (came ? 1 : 0)) {
      --x, --y;
      way.push_back({' ', before[static_cast<std::size_t>(x)]});
    }
    way.push_back(came ? Step{'+', after[static_cast<std::size_t>(from_y)]}
                       : Step{'-', before[static_cast<std::size_t>(from_x)]});
    x = from_x;
    y = from_y;
  }
  while (x > 0) way.push_back({' ', before[static_cast<std::size_t>(--x)]});
  std::reverse(way.begin(), way.end());
  return way;
}

std::string hunk_range(std::size_t begin, std::size_t count) {
  return std::to_string(count == 0 ? begin : begin + 1) + "," + std::to_string(count);
}

}  // namespace

std::string unified_diff(const std::string& path, std::string_view before, std::string_view after) {
  if (before == after) return "";
  const std::vector<Step> way = steps(lines_of(before), lines_of(after));
  std::string out = "--- " + path + "\n+++ " + path + "\n";
  std::size_t old_line = 0, new_line = 0;  // lines before the step
  for (std::size_t i = 0; i < way.size();) {
    if (way[i].mark == ' ') {
      ++i, ++old_line, ++new_line;
      continue;
    }
    // A hunk: from here to the last change that another follows within twice the context.
    std::size_t end = i;
    for (std::size_t j = i; j < way.size() && j <= end + 2 * kContext; ++j) {
      if (way[j].mark != ' ') end = j;
    }
    const std::size_t lead = std::min(kContext, std::min(old_line, i));
    const std::size_t begin = i - lead, stop = std::min(end + 1 + kContext, way.size());
    std::size_t gone = 0, come = 0;
    std::string body;
    for (std::size_t j = begin; j < stop; ++j) {
      gone += way[j].mark != '+';
      come += way[j].mark != '-';
      body.append(1, way[j].mark).append(way[j].line);
      if (!way[j].line.ends_with('\n')) body += "\n\\ No newline at end of file\n";
    }
    out += "@@ -" + hunk_range(old_line - lead, gone) + " +" + hunk_range(new_line - lead, come) + " @@\n" + body;
    old_line += gone - lead;
    new_line += come - lead;
    i = stop;
  }
  return out;
}

}  // namespace proviso::cli

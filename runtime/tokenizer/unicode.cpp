#include "runtime/tokenizer/unicode.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>

namespace proviso::model {
namespace {

constexpr char32_t kLastCodePoint = 0x10FFFF;

enum Category : std::uint8_t {
  Lu,
  Ll,
  Lt,
  Lm,
  Lo,
  Mn,
  Mc,
  Me,
  Nd,
  Nl,
  No,
  Pc,
  Pd,
  Ps,
  Pe,
  Pi,
  Pf,
  Po,
  Sm,
  Sc,
  Sk,
  So,
  Zs,
  Zl,
  Zp,
  Cc,
  Cf,
  Co,
  Cn,
};

constexpr std::array<std::string_view, 29> kCategoryNames = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl",
                                                             "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc",
                                                             "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cn"};

// All code points from `first` to the next run's first.
struct CategoryRun {
  char32_t first;
  Category category;
};

#include "runtime/tokenizer/unicode_tables.inc"

template <typename Accept>
void collect_runs(const Accept& accept, std::vector<CodePointRange>& out) {
  for (const CategoryRun* run = std::begin(kCategoryRuns); run != std::end(kCategoryRuns); ++run) {
    const char32_t last = run + 1 == std::end(kCategoryRuns) ? kLastCodePoint : run[1].first - 1;
    if (accept(kCategoryNames[run->category])) out.push_back({run->first, last});
  }
}

}  // namespace

CodePointSet::CodePointSet(std::vector<CodePointRange> ranges) : ranges_(std::move(ranges)) {
  std::sort(ranges_.begin(), ranges_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::size_t kept = 0;
  for (const CodePointRange& range : ranges_) {
    if (kept > 0 && range.first <= ranges_[kept - 1].last + 1) {
      ranges_[kept - 1].last = std::max(ranges_[kept - 1].last, range.last);
    } else {
      ranges_[kept++] = range;
    }
  }
  ranges_.resize(kept);
}

CodePointSet CodePointSet::complement() const {
  std::vector<CodePointRange> gaps;
  char32_t next = 0;
  for (const CodePointRange& range : ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) gaps.push_back({next, kLastCodePoint});
  return CodePointSet(std::move(gaps));
}

bool CodePointSet::contains(char32_t code_point) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), code_point,
                                      [](char32_t c, const CodePointRange& range) { return c < range.first; });
  return after != ranges_.begin() && code_point <= std::prev(after)->last;
}

std::optional<CodePointSet> unicode_category(std::string_view name) {
  std::vector<CodePointRange> ranges;
  if (!name.empty()) collect_runs([&](std::string_view category) { return category.starts_with(name); }, ranges);
  if (ranges.empty()) return std::nullopt;
  return CodePointSet(std::move(ranges));
}

const CodePointSet& white_space() {
  static const CodePointSet set(std::vector(std::begin(kWhiteSpace), std::end(kWhiteSpace)));
  return set;
}

const CodePointSet& numeric_characters() {
  static const CodePointSet set = [] {
    std::vector ranges(std::begin(kNumericBeyondCategories), std::end(kNumericBeyondCategories));
    collect_runs([](std::string_view category) { return category.starts_with('N'); }, ranges);
    return CodePointSet(std::move(ranges));
  }();
  return set;
}

const CodePointSet& word_characters() {
  static const CodePointSet set = [] {
    std::vector ranges(std::begin(kWordBeyondCategories), std::end(kWordBeyondCategories));
    const auto is_word = [](std::string_view category) {
      return category[0] == 'L' || category[0] == 'M' || category == "Nd" || category == "Nl" || category == "Pc";
    };
    collect_runs(is_word, ranges);
    return CodePointSet(std::move(ranges));
  }();
  return set;
}

}  // namespace proviso::model

#include "runtime/tokenizer/normal_form.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

struct Decomposition {
  char32_t whole, first, second;
};
struct CombiningRun {
  char32_t first, last;
  std::uint8_t combining_class;
};

#include "runtime/tokenizer/normal_form_tables.inc"

// Hangul syllables are L · V · T by arithmetic (the Unicode standard, section 3.12).
constexpr char32_t kSyllables = 0xAC00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11A7;
constexpr char32_t kLeadingCount = 19, kVowelCount = 21, kTrailingCount = 28;
constexpr char32_t kSyllableCount = kLeadingCount * kVowelCount * kTrailingCount;

struct Character {
  char32_t code_point;
  std::uint8_t combining_class;
};

std::uint8_t combining_class(char32_t c) {
  const auto run = std::ranges::upper_bound(kCombiningRuns, c, {}, &CombiningRun::first);
  return run != std::begin(kCombiningRuns) && c <= std::prev(run)->last ? std::prev(run)->combining_class : 0;
}

const Decomposition* find_in(std::span<const Decomposition> table, char32_t whole) {
  const auto found = std::ranges::lower_bound(table, whole, {}, &Decomposition::whole);
  return found != table.end() && found->whole == whole ? &*found : nullptr;
}

void take_apart(char32_t c, std::vector<Character>& out) {
  if (c >= kSyllables && c < kSyllables + kSyllableCount) {
    const char32_t index = c - kSyllables;
    out.push_back({kLeading + index / (kVowelCount * kTrailingCount), 0});
    out.push_back({kVowels + index % (kVowelCount * kTrailingCount) / kTrailingCount, 0});
    if (index % kTrailingCount != 0) out.push_back({kTrailing + index % kTrailingCount, 0});
    return;
  }
  const Decomposition* parts = find_in(kCompositions, c);
  if (!parts) parts = find_in(kDecompositions, c);
  if (!parts) return out.push_back({c, combining_class(c)});
  take_apart(parts->first, out);
  if (parts->second != 0) take_apart(parts->second, out);
}

/// What two characters compose to; 0 where they do not.
char32_t composed(char32_t first, char32_t second) {
  static const std::map<std::pair<char32_t, char32_t>, char32_t> kWholes = [] {
    std::map<std::pair<char32_t, char32_t>, char32_t> wholes;
    for (const Decomposition& each : kCompositions) wholes.emplace(std::pair(each.first, each.second), each.whole);
    return wholes;
  }();
  if (first >= kLeading && first < kLeading + kLeadingCount && second >= kVowels && second < kVowels + kVowelCount) {
    return kSyllables + ((first - kLeading) * kVowelCount + (second - kVowels)) * kTrailingCount;
  }
  const bool open_syllable =
      first >= kSyllables && first < kSyllables + kSyllableCount && (first - kSyllables) % kTrailingCount == 0;
  if (open_syllable && second > kTrailing && second < kTrailing + kTrailingCount) return first + (second - kTrailing);
  const auto found = kWholes.find({first, second});
  return found == kWholes.end() ? 0 : found->second;
}

}  // namespace

std::string to_normal_form_c(std::string text) {
  if (is_ascii(text)) return text;
  std::vector<Character> characters;
  for (std::size_t offset = 0; offset < text.size();) take_apart(next_code_point(text, offset), characters);

  // Marks are ordered between characters of class 0.
  for (auto begin = characters.begin(); begin != characters.end();) {
    if (begin->combining_class == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, characters.end(), [](const Character& c) { return c.combining_class == 0; });
    std::stable_sort(begin, end, [](const auto& a, const auto& b) { return a.combining_class < b.combining_class; });
    begin = end;
  }

  std::vector<Character> kept;
  std::size_t starter = 0;  // in `kept`
  bool has_starter = false;
  for (const Character& c : characters) {
    // A mark of the same class, or any character of class 0, between the two blocks them.
    const bool adjacent = has_starter && starter + 1 == kept.size();
    const bool blocked = !has_starter || (!adjacent && (kept.back().combining_class >= c.combining_class));
    const char32_t whole = blocked ? 0 : composed(kept[starter].code_point, c.code_point);
    if (whole != 0) {
      kept[starter].code_point = whole;
      continue;
    }
    if (c.combining_class == 0) {
      starter = kept.size();
      has_starter = true;
    }
    kept.push_back(c);
  }

  std::string out;
  out.reserve(text.size());
  for (const Character& c : kept) append_utf8(out, c.code_point);
  return out;
}

}  // namespace proviso::model

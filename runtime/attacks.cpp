#include "runtime/attacks.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/model/random.hpp"
#include "runtime/tokenizer/unicode.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::runtime {
namespace {

using CodePoints = std::u32string;

CodePoints code_points(std::string_view text) {
  CodePoints points;
  for (std::size_t at = 0; at < text.size();) points += model::next_code_point(text, at);
  return points;
}

std::string utf8(const CodePoints& points) {
  std::string text;
  for (const char32_t point : points) model::append_utf8(text, point);
  return text;
}

bool is_letter(char32_t point) {
  static const model::CodePointSet kLetters = *model::unicode_category("L");
  return kLetters.contains(point);
}

/// `rate` of the places, the fraction rounded up or down by chance, in ascending order.
std::vector<std::size_t> chosen(std::vector<std::size_t> places, double rate, model::NormalSource& random) {
  const double asked = rate * static_cast<double>(places.size());
  const auto count = std::min(places.size(), static_cast<std::size_t>(asked + random.uniform()));
  for (std::size_t i = 0; i < count; ++i) std::swap(places[i], places[i + random.below(places.size() - i)]);
  places.resize(count);
  std::sort(places.begin(), places.end());
  return places;
}

// ---- letter case -------------------------------------------------------------------------------

/// Lower-case letters of a script and the way to their capitals (Unicode's simple mapping).
struct CaseRun {
  char32_t first, last;  ///< lower case
  std::int32_t capital;  ///< what is added
  bool every_other;      ///< capitals and lower case alternate: only every second code point from `first` on is lower
};
constexpr CaseRun kCaseRuns[] = {
    {0x61, 0x7A, -32, false},                                                            // Latin
    {0xE0, 0xF6, -32, false},   {0xF8, 0xFE, -32, false},   {0xFF, 0xFF, 121, false},    // Latin-1
    {0x101, 0x12F, -1, true},   {0x133, 0x137, -1, true},   {0x13A, 0x148, -1, true},    // Latin Extended-A
    {0x14B, 0x177, -1, true},   {0x17A, 0x17E, -1, true},                                //
    {0x3AC, 0x3AC, -38, false}, {0x3AD, 0x3AF, -37, false}, {0x3B1, 0x3C1, -32, false},  // Greek
    {0x3C3, 0x3CB, -32, false}, {0x3C2, 0x3C2, -31, false}, {0x3CC, 0x3CC, -64, false}, {0x3CD, 0x3CE, -63, false},  //
    {0x430, 0x44F, -32, false}, {0x450, 0x45F, -80, false}, {0x461, 0x481, -1, true},  // Cyrillic
    {0x48B, 0x4BF, -1, true},   {0x4C2, 0x4CE, -1, true},   {0x4D1, 0x52F, -1, true},  //
    {0x561, 0x586, -48, false},                                                        // Armenian
};

char32_t upper(char32_t point) {
  for (const CaseRun& run : kCaseRuns) {
    if (point < run.first || point > run.last || (run.every_other && (point - run.first) % 2 != 0)) continue;
    return static_cast<char32_t>(static_cast<std::int32_t>(point) + run.capital);
  }
  return point;
}

char32_t lower(char32_t point) {
  for (const CaseRun& run : kCaseRuns) {
    const auto small = static_cast<char32_t>(static_cast<std::int32_t>(point) - run.capital);
    if (small < run.first || small > run.last || (run.every_other && (small - run.first) % 2 != 0)) continue;
    return small;
  }
  return point;
}

/// The letter after an apostrophe or a digit begins no word: "it's", "3rd".
bool begins_word(const CodePoints& points, std::size_t i) {
  if (!is_letter(points[i]) || i == 0) return i == 0;
  const char32_t before = points[i - 1];
  return !is_letter(before) && before != U'\'' && before != U'\u2019' && !model::numeric_characters().contains(before);
}

CodePoints recased(CodePoints points, dsl::AttackForm form, model::NormalSource& random) {
  for (std::size_t i = 0; i < points.size(); ++i) {
    switch (form) {
      case dsl::AttackForm::upper:
        points[i] = upper(points[i]);
        break;
      case dsl::AttackForm::lower:
        points[i] = lower(points[i]);
        break;
      case dsl::AttackForm::title:
        if (begins_word(points, i)) points[i] = upper(points[i]);
        break;
      default:
        if (is_letter(points[i])) points[i] = random.uniform() < 0.5 ? upper(points[i]) : lower(points[i]);
    }
  }
  return points;
}

// ---- letters ----------------------------------------------------------------------------------

/// The keys beside each Latin letter on a QWERTY keyboard, from `a`.
constexpr std::array<std::string_view, 26> kNeighbours = {
    "qwsz", "vghn", "xdfv", "serfcx", "wsdr", "drtgvc", "ftyhbv", "gyujnb", "ujko", "huikmn", "jiolm", "kop",  "njk",
    "bhjm", "iklp", "ol",   "wa",     "edft", "awedxz", "rfgy",   "yhji",   "cfgb", "qase",   "zsdc",  "tghu", "asx"};

char32_t neighbour(char32_t letter, model::NormalSource& random) {
  const bool capital = letter >= U'A' && letter <= U'Z';
  const std::string_view keys = kNeighbours[(capital ? letter + 32 : letter) - U'a'];
  const auto key = static_cast<char32_t>(keys[random.below(keys.size())]);
  return capital ? upper(key) : key;
}

bool is_latin_key(char32_t point) { return (point >= U'a' && point <= U'z') || (point >= U'A' && point <= U'Z'); }

CodePoints mistyped(CodePoints points, double rate, model::NormalSource& random) {
  std::vector<std::size_t> letters;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (is_letter(points[i])) letters.push_back(i);
  }
  auto places = chosen(std::move(letters), rate, random);
  // From the end, so that the places before keep theirs.
  for (auto place = places.rbegin(); place != places.rend(); ++place) {
    const std::size_t i = *place;
    const auto letter_at = [&](std::size_t at) { return at < points.size() && is_letter(points[at]); };
    enum class Typo { swap, leave_out, twice, neighbour };
    std::vector<Typo> possible{Typo::twice};
    if (letter_at(i + 1) && points[i + 1] != points[i]) possible.push_back(Typo::swap);
    if (letter_at(i + 1) || (i > 0 && letter_at(i - 1))) possible.push_back(Typo::leave_out);
    if (is_latin_key(points[i])) possible.push_back(Typo::neighbour);
    switch (possible[random.below(possible.size())]) {
      case Typo::swap:
        std::swap(points[i], points[i + 1]);
        break;
      case Typo::leave_out:
        points.erase(i, 1);
        break;
      case Typo::twice:
        points.insert(i, 1, points[i]);
        break;
      case Typo::neighbour:
        points[i] = neighbour(points[i], random);
        break;
    }
  }
  return points;
}

/// Latin letters and their Cyrillic or Greek doubles.
constexpr std::pair<char32_t, char32_t> kHomoglyphs[] = {
    {U'a', 0x430}, {U'c', 0x441}, {U'e', 0x435}, {U'i', 0x456}, {U'j', 0x458}, {U'o', 0x43E}, {U'p', 0x440},
    {U's', 0x455}, {U'x', 0x445}, {U'y', 0x443}, {U'A', 0x410}, {U'B', 0x412}, {U'C', 0x421}, {U'E', 0x415},
    {U'H', 0x41D}, {U'I', 0x406}, {U'J', 0x408}, {U'K', 0x41A}, {U'M', 0x41C}, {U'N', 0x39D}, {U'O', 0x41E},
    {U'P', 0x420}, {U'S', 0x405}, {U'T', 0x422}, {U'X', 0x425}, {U'Y', 0x3A5}, {U'Z', 0x396}};

CodePoints with_doubles(CodePoints points, double rate, model::NormalSource& random) {
  const auto find = [](char32_t point) {
    return std::find_if(std::begin(kHomoglyphs), std::end(kHomoglyphs),
                        [&](const auto& pair) { return pair.first == point; });
  };
  std::vector<std::size_t> letters;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (find(points[i]) != std::end(kHomoglyphs)) letters.push_back(i);
  }
  for (const std::size_t i : chosen(std::move(letters), rate, random)) points[i] = find(points[i])->second;
  return points;
}

std::string respaced(const std::string& prompt, dsl::AttackForm form) {
  if (form == dsl::AttackForm::leading) return " " + prompt;
  if (form == dsl::AttackForm::trailing) return prompt + " ";
  std::string text;
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    const bool space = prompt[i] == ' ';
    if (form == dsl::AttackForm::doubled) {
      text.append(space ? 2 : 1, prompt[i]);
    } else if (!space) {
      text += prompt[i];
    } else if (i == 0 || prompt[i - 1] != ' ') {
      text += '\t';
    }
  }
  return text;
}

}  // namespace

std::uint64_t attack_seed(std::uint64_t run_seed, const std::string& prompt, std::size_t place) {
  std::uint64_t text = prompt.size();
  for (const char byte : prompt) text = model::mix_seed(text, static_cast<unsigned char>(byte));
  return model::mix_seed(run_seed, text, place);
}

std::size_t drawn(std::uint64_t seed, std::size_t count) { return model::NormalSource(seed).below(count); }

std::string attacked_text(const dsl::Attack& attack, const std::string& prompt, std::uint64_t seed,
                          std::span<const std::string> texts) {
  model::NormalSource random(seed);
  switch (attack.kind) {
    case dsl::AttackKind::typos:
      return utf8(mistyped(code_points(prompt), attack.rate, random));
    case dsl::AttackKind::casing:
      return utf8(recased(code_points(prompt), attack.form, random));
    case dsl::AttackKind::whitespace:
      return respaced(prompt, attack.form);
    case dsl::AttackKind::homoglyphs:
      return utf8(with_doubles(code_points(prompt), attack.rate, random));
    case dsl::AttackKind::paraphrases: {
      std::string text = attack.templates[drawn(seed, attack.templates.size())];
      return text.replace(text.find("{}"), 2, prompt);
    }
    case dsl::AttackKind::distractors: {
      if (texts.empty()) return prompt;
      const std::string& beside = texts[drawn(seed, texts.size())];
      return attack.form == dsl::AttackForm::after ? prompt + " " + beside : beside + " " + prompt;
    }
    case dsl::AttackKind::translations:
      return texts[drawn(seed, texts.size())];
    case dsl::AttackKind::suffix_search:
    case dsl::AttackKind::perturb:
      return prompt;
  }
  return prompt;
}

}  // namespace proviso::runtime

// Attacks as functions of text.

#include "runtime/attacks.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "runtime/tokenizer/unicode.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::runtime {
namespace {

dsl::Attack attack(dsl::AttackKind kind, double rate = 0, dsl::AttackForm form = dsl::AttackForm::none) {
  dsl::Attack attack;
  attack.kind = kind;
  attack.rate = rate;
  attack.form = form;
  return attack;
}

std::string cased(dsl::AttackForm form, const std::string& text) {
  return attacked_text(attack(dsl::AttackKind::casing, 0, form), text, 1, {});
}

std::string spaced(dsl::AttackForm form, const std::string& text) {
  return attacked_text(attack(dsl::AttackKind::whitespace, 0, form), text, 1, {});
}

std::u32string points(const std::string& text) {
  std::u32string result;
  for (std::size_t at = 0; at < text.size();) result += model::next_code_point(text, at);
  return result;
}

/// Texts of words in several scripts, emoji, digits and marks.
std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {"capital", "I", "Größe", "naïve", "слово", "λόγος", "日本", "👍🏽",
                                                  "42",      " ", " ",     " ",     "\n",    "!",     "x",    "NASA",
                                                  "ǅ",       "é́", "ß",     "'s",    "don't", "\t",    "ŋ",    ""};
  std::string text;
  for (int i = 0; i < 12; ++i) text += kParts[random() % kParts.size()];
  return text;
}

std::size_t letters(const std::string& text) {
  static const auto kLetters = *model::unicode_category("L");
  const auto all = points(text);
  return static_cast<std::size_t>(
      std::count_if(all.begin(), all.end(), [](char32_t point) { return kLetters.contains(point); }));
}

}  // namespace

TEST_CASE("attacked texts are UTF-8, the same for the same seed, and of another for most others") {
  using enum dsl::AttackForm;
  using dsl::AttackKind;
  std::mt19937 source(3);
  const std::vector<std::string> distractors{"Première chose.", "第二"};
  auto templates = attack(AttackKind::paraphrases);
  templates.templates = {"Dis: {}", "{} ?", "« {} »"};
  const std::vector<dsl::Attack> attacks = {
      attack(AttackKind::typos, 0.05),
      attack(AttackKind::typos, 1),
      attack(AttackKind::homoglyphs, 0.4),
      attack(AttackKind::casing, 0, upper),
      attack(AttackKind::casing, 0, lower),
      attack(AttackKind::casing, 0, title),
      attack(AttackKind::casing, 0, random),
      attack(AttackKind::whitespace, 0, doubled),
      attack(AttackKind::whitespace, 0, tabs),
      templates,
      attack(AttackKind::distractors, 0, before),
  };
  for (const auto& one : attacks) {
    int differ = 0;
    for (int i = 0; i < 60; ++i) {
      const std::string text = random_text(source);
      const auto seed = attack_seed(7, text, 0);
      const std::string attacked = attacked_text(one, text, seed, distractors);
      INFO(static_cast<int>(one.kind) << " " << text << " -> " << attacked);
      CHECK(model::find_invalid_utf8(attacked) == std::string::npos);
      CHECK(attacked_text(one, text, seed, distractors) == attacked);
      differ += attacked_text(one, text, attack_seed(8, text, 0), distractors) != attacked;
    }
    // What is drawn depends on the seed, what is not does not.
    CHECK((differ > 10) == one.random());
    if (!one.random()) CHECK(differ == 0);
  }
  CHECK(attack_seed(7, "a", 0) != attack_seed(7, "a", 1));
  CHECK(attack_seed(7, "a", 0) != attack_seed(7, "b", 0));
  CHECK(attack_seed(7, "a", 0) != attack_seed(8, "a", 0));
  CHECK(attack_seed(7, "a", 0) == 1781243360830334474u);
}

TEST_CASE("the rate of typos and of homoglyphs is kept") {
  const std::string text = "The quick brown fox jumps over the lazy dog, and nobody in 1999 knew why it did so.";
  const auto n = static_cast<double>(letters(text));
  double doubles = 0;
  const int runs = 400;
  for (const double rate : {0.05, 0.3, 1.0}) {
    double changed = 0;
    for (int seed = 0; seed < runs; ++seed) {
      const auto with_doubles =
          points(attacked_text(attack(dsl::AttackKind::homoglyphs, rate), text, static_cast<std::uint64_t>(seed), {}));
      const auto foreign = static_cast<double>(
          std::count_if(with_doubles.begin(), with_doubles.end(), [](char32_t point) { return point > 0x7F; }));
      changed += foreign;
      if (rate == 1.0) doubles = foreign;
      REQUIRE(with_doubles.size() == text.size());
    }
    if (rate == 1.0) CHECK(changed == doubles * runs);
  }
  CHECK(doubles > 0.4 * n);

  // Every typo but a swap or a neighbour changes the length by one: no more of them than the rate allows.
  int untouched = 0;
  for (int seed = 0; seed < runs; ++seed) {
    const std::string typed =
        attacked_text(attack(dsl::AttackKind::typos, 0.05), text, static_cast<std::uint64_t>(seed), {});
    CHECK(std::abs(static_cast<double>(typed.size()) - static_cast<double>(text.size())) <= std::ceil(0.05 * n));
    untouched += typed == text;
  }
  CHECK(untouched == 0);  // 5 % of 64 letters are 3 or 4
  int changed = 0;
  for (int seed = 0; seed < runs; ++seed) {
    changed +=
        attacked_text(attack(dsl::AttackKind::typos, 0.05), "Rome", static_cast<std::uint64_t>(seed), {}) != "Rome";
  }
  CHECK(changed > 0.12 * runs);  // 5 % of 4 letters: a typo in every fifth text
  CHECK(changed < 0.28 * runs);
}

TEST_CASE("typos keep digits, spaces, marks and the number of words") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = "A cat, 1 dog; I ran 20 km!";
    const std::string typed = attacked_text(attack(dsl::AttackKind::typos, 0.6), text, seed, {});
    const auto others = [](std::string all) {
      std::erase_if(all, [](unsigned char c) { return std::isalpha(c) != 0; });
      return all;
    };
    INFO(typed);
    CHECK(others(typed) == others(text));
    for (const char* gap : {"  ", " ,", " ;", "  20"}) CHECK(typed.find(gap) == std::string::npos);
  }
}

TEST_CASE("letters change their case in every script that has one") {
  using enum dsl::AttackForm;
  CHECK(cased(upper, "naïve Größe ÿ łódź žluť λόγος слово ёлка հայ ß 7") ==
        "NAÏVE GRÖßE Ÿ ŁÓDŹ ŽLUŤ ΛΌΓΟΣ СЛОВО ЁЛКА ՀԱՅ ß 7");
  CHECK(cased(lower, "NAÏVE GRÖSSE Ÿ ŁÓDŹ ŽLUŤ ΛΌΓΟΣ СЛОВО ЁЛКА ՀԱՅ") ==
        "naïve grösse ÿ łódź žluť λόγοσ слово ёлка հայ");
  CHECK(cased(title, "the capital of été's 3rd élan") == "The Capital Of Été's 3rd Élan");
  CHECK(cased(upper, "1 + 1 = 2?") == "1 + 1 = 2?");
}

TEST_CASE("spaces are doubled, made tabs, or put at the ends") {
  using enum dsl::AttackForm;
  CHECK(spaced(doubled, "a b  c") == "a  b    c");
  CHECK(spaced(tabs, "a b  c") == "a\tb\tc");
  CHECK(spaced(leading, "a b") == " a b");
  CHECK(spaced(trailing, "a b") == "a b ");
}

TEST_CASE("a template and a distractor hold the prompt as it is") {
  auto templates = attack(dsl::AttackKind::paraphrases);
  templates.templates = {"Please: {}"};
  CHECK(attacked_text(templates, "say {} now", 1, {}) == "Please: say {} now");
  const std::vector<std::string> texts{"It rained."};
  CHECK(attacked_text(attack(dsl::AttackKind::distractors, 0, dsl::AttackForm::before), "Go", 1, texts) ==
        "It rained. Go");
  CHECK(attacked_text(attack(dsl::AttackKind::distractors, 0, dsl::AttackForm::after), "Go", 1, texts) ==
        "Go It rained.");
  CHECK(attacked_text(attack(dsl::AttackKind::distractors, 0, dsl::AttackForm::after), "Go", 1, {}) == "Go");
}

}  // namespace proviso::runtime

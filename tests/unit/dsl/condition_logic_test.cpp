// What the logic of conditions says is held against what conditions do, over random conditions and random runs.

#include "dsl/condition_logic.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace proviso::dsl {
namespace {

/// Activations and tokens by position of one text, the first `prompt_length` of which were given.
struct Text {
  std::vector<std::vector<double>> activations;  // [feature][position]
  std::vector<std::string> tokens;
  std::size_t prompt_length = 1;
  bool matches = false;
};

bool compared(double left, Compare op, double right) {
  switch (op) {
    case Compare::less:
      return left < right;
    case Compare::less_equal:
      return left <= right;
    case Compare::greater:
      return left > right;
    case Compare::greater_equal:
      return left >= right;
    case Compare::equal:
      return left == right;
    case Compare::not_equal:
      return left != right;
  }
  return false;
}

/// What the language says that a condition is at a position.
bool holds(const Condition& condition, const Text& text, std::size_t at) {
  const auto value = [&](const Operand& operand) {
    if (const auto* feature = std::get_if<FeatureId>(&operand)) return text.activations[*feature][at];
    if (const auto* quantile = std::get_if<Quantile>(&operand)) return quantile->p;  // any rising function of p
    return std::get<double>(operand);
  };
  const auto part_holds = [&](const ConditionPtr& part) { return holds(*part, text, at); };
  if (const auto* c = std::get_if<Comparison>(&condition.node)) return compared(value(c->left), c->op, value(c->right));
  if (std::holds_alternative<PromptMatches>(condition.node)) return text.matches;
  if (const auto* token = std::get_if<TokenIn>(&condition.node)) {
    return std::find(token->texts.begin(), token->texts.end(), text.tokens[at]) != token->texts.end();
  }
  if (const auto* position = std::get_if<PositionIs>(&condition.node)) {
    return compared(static_cast<double>(at), position->op, static_cast<double>(position->value));
  }
  if (std::holds_alternative<Generated>(condition.node)) return at >= text.prompt_length;
  if (const auto* any = std::get_if<Any>(&condition.node)) {
    for (std::size_t earlier = 1; earlier <= at; ++earlier) {
      if (holds(*any->of, text, earlier)) return true;
    }
    return false;
  }
  if (const auto* last = std::get_if<Last>(&condition.node)) {
    const std::size_t end = text.prompt_length - 1;
    return end >= 1 && at >= end && holds(*last->of, text, end);
  }
  if (const auto* negated = std::get_if<Not>(&condition.node)) return !part_holds(negated->of);
  if (const auto* all = std::get_if<And>(&condition.node)) {
    return std::all_of(all->of.begin(), all->of.end(), part_holds);
  }
  const auto& some = std::get<Or>(condition.node);
  return std::any_of(some.of.begin(), some.of.end(), part_holds);
}

class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {}

  Condition condition(int depth) { return {node(depth), {}}; }

  Text text() {
    Text text;
    const std::size_t length = 1 + pick(4);
    text.prompt_length = 1 + pick(static_cast<int>(length));
    text.matches = pick(2) == 0;
    text.activations.resize(2);
    for (std::size_t at = 0; at < length; ++at) {
      for (auto& feature : text.activations) feature.push_back(0.25 * pick(9));
      text.tokens.push_back(kTokens[pick(3)]);
    }
    return text;
  }

 private:
  static constexpr const char* kTokens[] = {" a", " b", "é"};

  std::size_t pick(int choices) { return std::uniform_int_distribution<std::size_t>(0, choices - 1)(random_); }
  ConditionPtr part(int depth) { return std::make_shared<const Condition>(condition(depth)); }
  Compare order() { return static_cast<Compare>(pick(4)); }

  decltype(Condition::node) node(int depth) {
    switch (depth == 0 ? pick(5) : pick(11)) {
      case 0:
        return Comparison{FeatureId{pick(2)}, order(), 0.25 * pick(9)};
      case 1:
        if (pick(2) == 0) return Comparison{FeatureId{0}, order(), FeatureId{1}};
        return Comparison{FeatureId{0}, order(), Quantile{0.5 * pick(3), 0, 0}};
      case 2:
        return PositionIs{static_cast<Compare>(pick(6)), static_cast<std::int64_t>(pick(4))};
      case 3:
        if (pick(2) == 0) return Generated{};
        return PromptMatches{"x"};
      case 4: {
        TokenIn in;
        for (std::size_t n = 1 + pick(2); n > 0; --n) in.texts.emplace_back(kTokens[pick(3)]);
        return in;
      }
      case 5:
        return Any{part(depth - 1)};
      case 6:
        return Last{part(depth - 1)};
      case 7:
      case 8:
        return Not{part(depth - 1)};
      case 9: {
        And all;
        for (std::size_t n = 2 + pick(2); n > 0; --n) all.of.push_back(part(depth - 1));
        return all;
      }
      default: {
        Or some;
        for (std::size_t n = 2 + pick(2); n > 0; --n) some.of.push_back(part(depth - 1));
        return some;
      }
    }
  }

  std::mt19937 random_;
};

/// As behind `when`.
bool acts(const Condition& condition, const Text& text, std::size_t at) {
  return holds(condition, text, at) && (at > 0 || features_read(condition).empty());
}

TEST_CASE("what is said never to hold, always to hold or to imply another does, whatever the text") {
  int never = 0, always = 0, implied = 0;
  for (unsigned seed = 0; seed < 3000; ++seed) {
    Generator random(seed);
    const Condition a = random.condition(3), b = random.condition(2);
    const bool a_can = can_hold(a), a_always = always_holds(a), both_can = can_hold({&a, &b}),
               a_within = implies(&a, &b);
    never += !a_can;
    always += a_always;
    implied += a_within && a_can;
    const bool reads = !features_read(a).empty();
    for (int n = 0; n < 40; ++n) {
      const Text text = random.text();
      for (std::size_t at = 0; at < text.tokens.size(); ++at) {
        const bool a_acts = acts(a, text, at), b_acts = acts(b, text, at);
        INFO("seed " << seed << ", position " << at);
        if (a_acts && !a_can) FAIL("held, and was said never to");
        if (a_acts && b_acts && !both_can) FAIL("held at once, and were said never to");
        if (a_always && !a_acts && (at > 0 || !reads)) FAIL("did not hold, and was said always to");
        if (a_within && a_acts && !b_acts) FAIL("held without the other, and was said to imply it");
      }
    }
  }
  // Random conditions do contain some of each: the test has something to refute.
  CHECK(never > 50);
  CHECK(always > 50);
  CHECK(implied > 20);
}

TEST_CASE("a condition too large to look into is taken to be able to hold") {
  const auto pair = [](std::int64_t at) {
    Or some;
    for (const Compare op : {Compare::less, Compare::greater}) {
      some.of.push_back(std::make_shared<const Condition>(Condition{PositionIs{op, at}, {}}));
    }
    return std::make_shared<const Condition>(Condition{std::move(some), {}});
  };
  And all;
  for (std::int64_t at = 0; at < 40; ++at) all.of.push_back(pair(at));
  all.of.push_back(std::make_shared<const Condition>(Condition{PositionIs{Compare::less, 0}, {}}));
  CHECK(can_hold(Condition{std::move(all), {}}));
}

TEST_CASE("two conditions are sure to meet only where no model is needed to tell") {
  const auto above = [](FeatureId feature, double value) {
    return Condition{Comparison{feature, Compare::greater_equal, value}, {}};
  };
  const auto below = [](FeatureId feature, double value) {
    return Condition{Comparison{feature, Compare::less_equal, value}, {}};
  };
  const Condition high = above(0, 0.5), higher = above(0, 0.8), low = below(0, 0.5), lowish = below(0, 0.9);
  const Condition other = above(1, 0.5), late{PositionIs{Compare::greater_equal, 4}, {}};
  const auto every = [](FeatureId) { return true; };
  CHECK(must_meet(&high, nullptr, every));
  CHECK(must_meet(&high, &higher, every));
  CHECK(must_meet(&high, &lowish, every));
  CHECK(must_meet(&high, &late, every));
  CHECK_FALSE(must_meet(&high, &low, every));  // one value
  CHECK_FALSE(must_meet(&higher, &low, every));
  CHECK_FALSE(must_meet(&high, &other, every));
  CHECK_FALSE(must_meet(&high, &lowish, [](FeatureId) { return false; }));  // values may have gaps
}

}  // namespace
}  // namespace proviso::dsl

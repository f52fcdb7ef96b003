#include "dsl/condition_logic.hpp"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <variant>

namespace proviso::dsl {
namespace {

// Beyond these a condition is taken to be able to hold.
constexpr std::size_t kMostConjunctions = 512;
constexpr int kMostSteps = 20'000;
constexpr std::size_t kMostOperands = 64;  // of one conjunction's comparisons

ConditionPtr made(Condition condition) { return std::make_shared<const Condition>(std::move(condition)); }

/// One that others own, for as long as they do.
ConditionPtr borrowed(const Condition& condition) { return {ConditionPtr{}, &condition}; }

ConditionPtr position(Compare op, std::int64_t value) { return made({PositionIs{op, value}, {}}); }
ConditionPtr negation(ConditionPtr of) { return made({Not{std::move(of)}, {}}); }
ConditionPtr all_of(std::vector<ConditionPtr> of) { return made({And{std::move(of)}, {}}); }

/// As it decides behind `when`: nothing that reads a feature holds at position 0.
ConditionPtr deciding(const Condition& condition) {
  if (features_read(condition).empty()) return borrowed(condition);
  return all_of({borrowed(condition), position(Compare::greater_equal, 1)});
}

// ---- disjunctive form ------------------------------------------------------------------------

struct Literal {
  ConditionPtr atom;  ///< no `and`, `or` or `not`
  bool holds = true;
};
using Conjunction = std::vector<Literal>;
/// Nothing: too large.
using Disjunction = std::optional<std::vector<Conjunction>>;

Disjunction either(Disjunction a, Disjunction b) {
  if (!a || !b || a->size() + b->size() > kMostConjunctions) return std::nullopt;
  a->insert(a->end(), b->begin(), b->end());
  return a;
}

Disjunction both(const Disjunction& a, const Disjunction& b) {
  if (!a || !b || a->size() * b->size() > kMostConjunctions) return std::nullopt;
  std::vector<Conjunction> result;
  for (const Conjunction& one : *a) {
    for (const Conjunction& other : *b) {
      result.push_back(one);
      result.back().insert(result.back().end(), other.begin(), other.end());
    }
  }
  return result;
}

Disjunction disjunction(const ConditionPtr& condition, bool holds) {
  const auto folded = [&](const std::vector<ConditionPtr>& parts, bool conjoin) {
    Disjunction result = conjoin ? std::vector<Conjunction>{{}} : std::vector<Conjunction>{};
    for (const ConditionPtr& part : parts) {
      Disjunction next = disjunction(part, holds);
      result = conjoin ? both(result, next) : either(std::move(result), std::move(next));
    }
    return result;
  };
  if (const auto* of = std::get_if<Not>(&condition->node)) return disjunction(of->of, !holds);
  if (const auto* of = std::get_if<And>(&condition->node)) return folded(of->of, holds);
  if (const auto* of = std::get_if<Or>(&condition->node)) return folded(of->of, !holds);
  const Disjunction literal = std::vector<Conjunction>{{{condition, holds}}};
  const auto* any = std::get_if<Any>(&condition->node);
  if (any == nullptr || holds) return literal;
  // What never held from position 1 to this does not hold at this.
  return both(literal, either(disjunction(any->of, false), disjunction(position(Compare::equal, 0), true)));
}

// ---- tokens ----------------------------------------------------------------------------------

/// Texts with unequal keys are unequal tokens in every model: a normalizer may ignore case and spaces. Nothing where
/// it may do more.
std::optional<std::string> token_key(const std::string& text) {
  std::string key;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || std::iscntrl(byte) != 0) return std::nullopt;
    if (std::isspace(byte) == 0) key += static_cast<char>(std::tolower(byte));
  }
  return key.empty() ? std::nullopt : std::optional(key);
}

/// Whether one token can be in each of the lists that hold, and in none of the others.
bool tokens_fit(const std::vector<const TokenIn*>& in, const std::vector<const TokenIn*>& out) {
  std::set<std::string> excluded;
  for (const TokenIn* list : out) excluded.insert(list->texts.begin(), list->texts.end());
  std::optional<std::set<std::string>> common;  // keys; nothing: any
  for (const TokenIn* list : in) {
    std::set<std::string> keys;
    bool any = false, left = false;
    for (const std::string& text : list->texts) {
      if (excluded.contains(text)) continue;
      left = true;
      const auto key = token_key(text);
      any = any || !key;
      if (key && (!common || common->contains(*key))) keys.insert(*key);
    }
    if (!left) return false;
    if (any) continue;
    common = std::move(keys);
    if (common->empty()) return false;
  }
  return true;
}

// ---- activations, numbers and quantiles --------------------------------------------------------

/// What is compared, put in an order: a ≤ b and a < b. It is consistent where no circle holds a <.
class Order {
 public:
  void compare(const Operand& left, Compare op, const Operand& right) {
    const std::size_t a = number_of(left), b = number_of(right);
    if (op == Compare::less || op == Compare::less_equal) {
      links_.emplace_back(a, b, op == Compare::less);
    } else {
      links_.emplace_back(b, a, op == Compare::greater);
    }
  }

  bool consistent() {
    const std::size_t n = operands_.size();
    if (n > kMostOperands) return true;
    for (std::size_t a = 0; a < n; ++a) {
      for (std::size_t b = 0; b < n; ++b) known(a, b);
    }
    enum : std::uint8_t { kNone, kAtMost, kBelow };
    std::vector<std::uint8_t> reach(n * n, kNone);
    for (const auto& [a, b, strict] : links_) {
      reach[a * n + b] = std::max<std::uint8_t>(reach[a * n + b], strict ? kBelow : kAtMost);
    }
    for (std::size_t by = 0; by < n; ++by) {
      for (std::size_t a = 0; a < n; ++a) {
        for (std::size_t b = 0; b < n; ++b) {
          if (reach[a * n + by] == kNone || reach[by * n + b] == kNone) continue;
          reach[a * n + b] = std::max({reach[a * n + b], reach[a * n + by], reach[by * n + b]});
        }
      }
    }
    for (std::size_t a = 0; a < n; ++a) {
      if (reach[a * n + a] == kBelow) return false;
    }
    return true;
  }

 private:
  /// What is known of two numbers, and of two quantiles of one feature over one set.
  void known(std::size_t a, std::size_t b) {
    const auto *x = std::get_if<double>(&operands_[a]), *y = std::get_if<double>(&operands_[b]);
    if (x != nullptr && y != nullptr && *x < *y) links_.emplace_back(a, b, true);
    const auto *p = std::get_if<Quantile>(&operands_[a]), *q = std::get_if<Quantile>(&operands_[b]);
    if (p != nullptr && q != nullptr && p->feature == q->feature && p->prompts == q->prompts && p->p < q->p) {
      links_.emplace_back(a, b, false);
    }
  }

  static bool same(const Operand& a, const Operand& b) {
    if (a.index() != b.index()) return false;
    if (const auto* quantile = std::get_if<Quantile>(&a)) {
      const auto& other = std::get<Quantile>(b);
      return quantile->p == other.p && quantile->prompts == other.prompts && quantile->feature == other.feature;
    }
    const auto* value = std::get_if<double>(&a);
    return value != nullptr ? *value == std::get<double>(b) : std::get<FeatureId>(a) == std::get<FeatureId>(b);
  }

  std::size_t number_of(const Operand& operand) {
    const auto found =
        std::find_if(operands_.begin(), operands_.end(), [&](const Operand& o) { return same(o, operand); });
    if (found != operands_.end()) return static_cast<std::size_t>(found - operands_.begin());
    operands_.push_back(operand);
    return operands_.size() - 1;
  }

  std::vector<Operand> operands_;
  std::vector<std::tuple<std::size_t, std::size_t, bool>> links_;  // from, to, strict
};

// ---- one conjunction ---------------------------------------------------------------------------

/// Positions from 0 that are left, and those among them that are not.
struct Positions {
  std::int64_t first = 0;
  std::int64_t last = std::numeric_limits<std::int64_t>::max();
  std::set<std::int64_t> without;

  void keep(Compare op, std::int64_t value) {
    switch (op) {
      case Compare::less:
        return keep(Compare::less_equal, value - 1);
      case Compare::less_equal:
        last = std::min(last, value);
        return;
      case Compare::greater:
        if (value == std::numeric_limits<std::int64_t>::max()) {
          last = -1;
          return;
        }
        return keep(Compare::greater_equal, value + 1);
      case Compare::greater_equal:
        first = std::max(first, value);
        return;
      case Compare::equal:
        first = std::max(first, value);
        last = std::min(last, value);
        return;
      case Compare::not_equal:
        without.insert(value);
    }
  }

  bool empty() {
    while (first <= last && without.contains(first)) ++first;
    while (first <= last && without.contains(last)) --last;
    return first > last;
  }
};

class Solver {
 public:
  /// Whether activations of an interval count only where it is more than one value.
  explicit Solver(bool open = false) : open_(open) {}

  bool can_hold(const ConditionPtr& condition) {
    const Disjunction forms = disjunction(condition, true);
    if (!forms) return true;
    return std::any_of(forms->begin(), forms->end(), [&](const Conjunction& form) { return can_hold(form); });
  }

  bool can_hold(const Conjunction& form) {
    steps_ += 1 + static_cast<int>(form.size());
    if (steps_ > kMostSteps) return true;
    Positions positions;
    Order order;
    std::optional<bool> generated;
    std::map<std::string, bool> prompt;
    std::vector<const TokenIn*> in, out;
    std::vector<ConditionPtr> ever, last;     // what held at some position so far, at the last prompt token
    std::vector<ConditionPtr> never, unlast;  // what did not
    std::vector<ConditionPtr> of_prompt;
    for (const auto& [atom, holds] : form) {
      const auto& node = atom->node;
      if (const auto* c = std::get_if<Comparison>(&node)) {
        order.compare(c->left, strict(holds ? c->op : complement(c->op)), c->right);
      } else if (const auto* p = std::get_if<PositionIs>(&node)) {
        positions.keep(holds ? p->op : complement(p->op), p->value);
      } else if (std::holds_alternative<Generated>(node)) {
        if (generated.value_or(holds) != holds) return false;
        generated = holds;
        if (holds) positions.keep(Compare::greater_equal, 1);
      } else if (const auto* matches = std::get_if<PromptMatches>(&node)) {
        if (prompt.emplace(matches->regex, holds).first->second != holds) return false;
        of_prompt.push_back(holds ? atom : negation(atom));
      } else if (const auto* token = std::get_if<TokenIn>(&node)) {
        (holds ? in : out).push_back(token);
      } else if (const auto* any = std::get_if<Any>(&node)) {
        (holds ? ever : never).push_back(any->of);
      } else if (const auto* at_last = std::get_if<Last>(&node)) {
        (holds ? last : unlast).push_back(at_last->of);
      }
    }
    if (!ever.empty() || !last.empty()) positions.keep(Compare::greater_equal, 1);
    if (positions.empty() || !tokens_fit(in, out) || !order.consistent()) return false;

    // What held earlier did so at a position from 1 to this, where nothing held that never did.
    std::vector<ConditionPtr> there = of_prompt;
    there.push_back(position(Compare::greater_equal, 1));
    there.push_back(position(Compare::less_equal, positions.last));
    for (const ConditionPtr& each : never) there.push_back(negation(each));
    for (const ConditionPtr& each : ever) {
      std::vector<ConditionPtr> together = there;
      together.push_back(each);
      if (!can_hold(all_of(std::move(together)))) return false;
    }
    if (last.empty()) return true;
    there.push_back(negation(made({Generated{}, {}})));
    there.insert(there.end(), last.begin(), last.end());
    for (const ConditionPtr& each : unlast) there.push_back(negation(each));
    return can_hold(all_of(std::move(there)));
  }

 private:
  Compare strict(Compare op) const {
    if (!open_) return op;
    return op == Compare::less_equal ? Compare::less : op == Compare::greater_equal ? Compare::greater : op;
  }

  bool open_;
  int steps_ = 0;
};

/// Whether positions and the values of at most one feature decide a conjunction: then what can hold does, somewhere.
bool decided_by_one(const Conjunction& form, const std::function<bool(FeatureId)>& every_value) {
  std::set<FeatureId> read;
  for (const auto& [atom, holds] : form) {
    if (std::holds_alternative<PositionIs>(atom->node) || std::holds_alternative<Generated>(atom->node)) continue;
    const auto* comparison = std::get_if<Comparison>(&atom->node);
    if (comparison == nullptr) return false;
    for (const Operand* side : {&comparison->left, &comparison->right}) {
      if (std::holds_alternative<Quantile>(*side)) return false;
      if (const auto* feature = std::get_if<FeatureId>(side)) read.insert(*feature);
    }
  }
  return read.size() <= 1 && std::all_of(read.begin(), read.end(), every_value);
}

}  // namespace

Compare complement(Compare op) {
  switch (op) {
    case Compare::less:
      return Compare::greater_equal;
    case Compare::less_equal:
      return Compare::greater;
    case Compare::greater:
      return Compare::less_equal;
    case Compare::greater_equal:
      return Compare::less;
    case Compare::equal:
      return Compare::not_equal;
    case Compare::not_equal:
      return Compare::equal;
  }
  return op;
}

void each_condition(const Condition& condition, const std::function<void(const Condition&)>& see) {
  see(condition);
  const auto within = [&](const std::vector<ConditionPtr>& parts) {
    for (const ConditionPtr& part : parts) each_condition(*part, see);
  };
  if (const auto* any = std::get_if<Any>(&condition.node)) within({any->of});
  if (const auto* last = std::get_if<Last>(&condition.node)) within({last->of});
  if (const auto* negated = std::get_if<Not>(&condition.node)) within({negated->of});
  if (const auto* all = std::get_if<And>(&condition.node)) within(all->of);
  if (const auto* some = std::get_if<Or>(&condition.node)) within(some->of);
}

std::vector<FeatureId> features_read(const Condition& condition) {
  std::vector<FeatureId> features;
  each_condition(condition, [&](const Condition& part) {
    const auto* comparison = std::get_if<Comparison>(&part.node);
    if (comparison == nullptr) return;
    for (const auto* operand : {&comparison->left, &comparison->right}) {
      const auto* feature = std::get_if<FeatureId>(operand);
      if (feature != nullptr && std::find(features.begin(), features.end(), *feature) == features.end()) {
        features.push_back(*feature);
      }
    }
  });
  return features;
}

bool can_hold(const std::vector<const Condition*>& together) {
  std::vector<ConditionPtr> all;
  for (const Condition* each : together) all.push_back(deciding(*each));
  return Solver().can_hold(all_of(std::move(all)));
}

bool can_hold_on_prompt(const Condition& condition) {
  return Solver().can_hold(all_of({deciding(condition), negation(made({Generated{}, {}}))}));
}

bool always_holds(const Condition& condition) {
  std::vector<ConditionPtr> elsewhere{negation(borrowed(condition))};
  if (!features_read(condition).empty()) elsewhere.push_back(position(Compare::greater_equal, 1));
  return !Solver().can_hold(all_of(std::move(elsewhere)));
}

bool implies(const Condition* a, const Condition* b) {
  if (b == nullptr) return true;
  std::vector<ConditionPtr> only_a{negation(deciding(*b))};
  if (a != nullptr) only_a.push_back(deciding(*a));
  return !Solver().can_hold(all_of(std::move(only_a)));
}

bool must_meet(const Condition* a, const Condition* b, const std::function<bool(FeatureId)>& every_value) {
  if ((a != nullptr && !can_hold(*a)) || (b != nullptr && !can_hold(*b))) return false;
  if (implies(a, b) || implies(b, a)) return true;
  const Disjunction forms = disjunction(all_of({deciding(*a), deciding(*b)}), true);
  if (!forms) return false;
  Solver solver(/*open=*/true);
  return std::any_of(forms->begin(), forms->end(), [&](const Conjunction& form) {
    return decided_by_one(form, every_value) && solver.can_hold(form);
  });
}

}  // namespace proviso::dsl

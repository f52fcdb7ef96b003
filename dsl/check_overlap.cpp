// What cannot hold together: targets that contradict, conditions that never or always hold, and interventions that
// others override.

#include <algorithm>
#include <optional>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/condition_logic.hpp"
#include "dsl/site_reach.hpp"

namespace proviso::dsl {
namespace {

/// What an intervention asks of an activation: factor · a + shift. Nothing for `cap`, which bounds others.
struct Target {
  double factor = 1;
  double shift = 0;
  bool operator==(const Target&) const = default;
};

std::optional<Target> target_of(const Intervention& intervention) {
  switch (intervention.operation) {
    case Operation::suppress:
      return Target{1 - intervention.amount, 0};
    case Operation::amplify:
      return Target{intervention.amount, 0};
    case Operation::clamp:
      return Target{0, intervention.amount};
    case Operation::steer:
      return Target{1, intervention.amount};
    case Operation::cap:
      return std::nullopt;
  }
  return std::nullopt;
}

/// A site at which both act on one feature, in some model.
std::optional<std::string> shared_site(const RuleSet& rule_set, const Intervention& a, const Intervention& b) {
  if (!rule_set.features[a.feature].site) return "its autoencoder's site";
  // Where the model is to choose, only what acts at the same choice is sure to meet.
  const auto at_choice = [&](const Intervention& each) {
    return each.sites.empty() && rule_set.features[each.feature].choice.has_value();
  };
  if (at_choice(a) || at_choice(b)) {
    if (!at_choice(a) || !at_choice(b) || a.feature != b.feature) return std::nullopt;
    return "its own site";
  }
  for (const SiteSpec& one : sites_of(rule_set, a)) {
    for (const SiteSpec& other : sites_of(rule_set, b)) {
      if (overlap(one, other)) return to_string(other);
    }
  }
  return std::nullopt;
}

/// Whether two conditions are written alike and mean the same: names may stand for others in another file.
bool same_condition(const Intervention& a, const Intervention& b) {
  if (a.condition == nullptr || b.condition == nullptr) return a.condition == b.condition;
  const auto named = [](const Condition& condition) {
    std::vector<std::size_t> ids;
    each_condition(condition, [&](const Condition& part) {
      const auto* comparison = std::get_if<Comparison>(&part.node);
      if (comparison == nullptr) return;
      for (const Operand* side : {&comparison->left, &comparison->right}) {
        if (const auto* feature = std::get_if<FeatureId>(side)) ids.push_back(*feature);
        if (const auto* quantile = std::get_if<Quantile>(side)) ids.push_back(quantile->prompts);
      }
    });
    return ids;
  };
  return a.condition_text == b.condition_text && named(*a.condition) == named(*b.condition);
}

/// Whether `one` acts wherever `other` does, on the same feature.
bool acts_wherever(const RuleSet& rule_set, const Intervention& one, const Intervention& other) {
  if (one.feature != other.feature) return false;
  // All that the choice may fall on is covered by what covers the candidates; a choice covers only itself.
  if (one.sites.empty() && !other.sites.empty() && rule_set.features[one.feature].choice) return false;
  const auto sites = sites_of(rule_set, one), others = sites_of(rule_set, other);
  const bool everywhere = std::all_of(others.begin(), others.end(), [&](const SiteSpec& part) {
    return std::any_of(sites.begin(), sites.end(), [&](const SiteSpec& whole) { return covers(whole, part); });
  });
  if (!everywhere) return false;
  return same_condition(one, other) || implies(other.condition.get(), one.condition.get());
}

/// Whether `one` leaves nothing for `other` to change, whatever else is in force.
bool overrides(const RuleSet& rule_set, const Intervention& one, const Intervention& other) {
  const auto asked = target_of(one), also = target_of(other);
  const bool same = asked && also && *asked == *also;
  const bool tighter = !asked && !also && one.amount <= other.amount;
  return (same || tighter) && acts_wherever(rule_set, one, other);
}

/// What the source says, on one line.
std::string quoted(const SourceSet& sources, Span span) {
  std::string text;
  for (const char c : sources.text(span)) {
    const bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    if (!blank) text += c;
    if (blank && !text.empty() && text.back() != ' ') text += ' ';
  }
  return "`" + text + "`";
}

/// The innermost part that cannot hold by itself.
const Condition& culprit(const Condition& condition) {
  const auto within = [](const std::vector<ConditionPtr>& parts) -> const Condition* {
    const auto found = std::find_if(parts.begin(), parts.end(), [](const auto& part) { return !can_hold(*part); });
    return found == parts.end() ? nullptr : &culprit(**found);
  };
  const Condition* inner = nullptr;
  if (const auto* all = std::get_if<And>(&condition.node)) inner = within(all->of);
  if (const auto* any = std::get_if<Any>(&condition.node)) inner = within({any->of});
  if (const auto* last = std::get_if<Last>(&condition.node)) inner = within({last->of});
  return inner != nullptr ? *inner : condition;
}

/// How many comparisons read features.
std::size_t reads(const Condition& condition) {
  std::size_t count = 0;
  each_condition(condition, [&](const Condition& part) {
    count += std::holds_alternative<Comparison>(part.node) && !features_read(part).empty();
  });
  return count;
}

/// Two parts that cannot hold at once. (The parts of a chain stand at one place, which says it all.)
std::optional<std::pair<Span, Span>> clash(const Condition& condition) {
  const auto* all = std::get_if<And>(&condition.node);
  if (all == nullptr) return std::nullopt;
  for (std::size_t later = 1; later < all->of.size(); ++later) {
    for (std::size_t earlier = 0; earlier < later; ++earlier) {
      const Condition &a = *all->of[earlier], &b = *all->of[later];
      if (!(a.span == b.span) && !can_hold({&a, &b})) return std::pair{a.span, b.span};
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<SiteSpec> sites_of(const RuleSet& rule_set, const Intervention& intervention) {
  if (!intervention.sites.empty()) return intervention.sites;
  const auto& own = rule_set.features[intervention.feature].site;
  return own ? std::vector{*own} : std::vector<SiteSpec>{};
}

std::vector<Diagnostic> contradictions(const RuleSet& rule_set, const std::vector<RuleId>& rules,
                                       const Change* change) {
  struct Asked {
    const Intervention* intervention;
    Target target;
  };
  std::map<FeatureId, std::vector<Asked>> by_feature;
  const auto ask = [&](const Intervention& each) {
    const auto target = target_of(each);
    if (!target) return;
    const auto members = members_of(rule_set.features[each.feature]);
    for (const FeatureId member : members.empty() ? std::vector{each.feature} : members)
      by_feature[member].push_back({&each, *target});
  };
  const auto ask_rule = [&](RuleId rule) {
    std::for_each(rule_set.rules[rule].interventions.begin(), rule_set.rules[rule].interventions.end(), ask);
  };
  std::for_each(rules.begin(), rules.end(), ask_rule);
  if (const auto* sentence = change ? std::get_if<Intervention>(change) : nullptr) ask(*sentence);
  if (const auto* rule = change ? std::get_if<ChangeRule>(change) : nullptr) ask_rule(rule->rule);
  const auto every_value = [&](FeatureId id) {
    const auto& constructor = rule_set.features[id].constructor;
    return !std::holds_alternative<Latent>(constructor) && !std::holds_alternative<Neuron>(constructor);
  };
  std::vector<Diagnostic> found;
  for (const auto& [feature, asked] : by_feature) {
    for (std::size_t later = 1; later < asked.size(); ++later) {
      for (std::size_t earlier = 0; earlier < later; ++earlier) {
        const Asked &a = asked[earlier], &b = asked[later];
        if (a.target == b.target) continue;
        const auto site = shared_site(rule_set, *a.intervention, *b.intervention);
        if (!site) continue;
        if (!same_condition(*a.intervention, *b.intervention) &&
            !must_meet(a.intervention->condition.get(), b.intervention->condition.get(), every_value)) {
          continue;
        }
        found.push_back(make_diagnostic(Code::contradiction, b.intervention->span,
                                        "feature `" + rule_set.features[feature].name + "` at " + *site +
                                            " cannot be given two activations at once: `" + b.intervention->text +
                                            "` contradicts `" + a.intervention->text + "`",
                                        {"keep one of them, make them act at different sites or under conditions that "
                                         "exclude each other, or bound one by `cap`"}));
        found.back().related.push_back({a.intervention->span, "the other intervention"});
        break;
      }
    }
  }
  return found;
}

// ---- conditions ------------------------------------------------------------------------------

void Checker::check_holding(const Condition& condition) {
  if (!can_hold(condition)) {
    never_holds(condition, "so the sentence never acts");
  } else if (always_holds(condition)) {
    report(
        Code::always_holds, condition.span,
        quoted(sources_, condition.span) +
            (features_read(condition).empty() ? " holds at every position" : " holds at every position but the first"),
        {"leave the condition out, or say what it is to leave out"});
  } else {
    check_parts(condition, reads(condition));
  }
}

/// Alternatives that add nothing, and parts that decide nothing, in a condition that can hold. A part that alone reads
/// features keeps the sentence off position 0, which is something: `all_reads` counts those of the whole condition.
void Checker::check_parts(const Condition& condition, std::size_t all_reads) {
  const auto is_needed = [&](const Condition& part) { return reads(part) > 0 && reads(part) == all_reads; };
  if (const auto* some = std::get_if<Or>(&condition.node)) {
    for (const ConditionPtr& each : some->of) {
      if (can_hold(*each) || is_needed(*each)) {
        check_parts(*each, all_reads);
      } else {
        never_holds(*each, "so this alternative adds nothing");
      }
    }
  } else if (const auto* all = std::get_if<And>(&condition.node)) {
    for (const ConditionPtr& each : all->of) {
      if (each->span == condition.span) continue;  // a link of a chain
      if (always_holds(*each) && !is_needed(*each)) {
        report(Code::always_holds, each->span, quoted(sources_, each->span) + " always holds, so it decides nothing",
               {"leave it out"});
      } else {
        check_parts(*each, all_reads);
      }
    }
  } else if (const auto* any = std::get_if<Any>(&condition.node)) {
    check_parts(*any->of, all_reads);
  } else if (const auto* last = std::get_if<Last>(&condition.node)) {
    check_parts(*last->of, all_reads);
  }
}

void Checker::never_holds(const Condition& condition, const std::string& consequence) {
  const Condition& part = culprit(condition);
  if (const auto pair = clash(part)) {
    report(Code::never_holds, part.span,
           quoted(sources_, pair->first) + " and " + quoted(sources_, pair->second) + " never hold at once, " +
               consequence,
           {"write `or` where either is enough, or turn one of them round"})
        .related.push_back({pair->second, "never at once with the other"});
  } else {
    report(Code::never_holds, part.span, quoted(sources_, part.span) + " never holds, " + consequence,
           {"say what can be: a lower end below the upper one, a position that there is"});
  }
}

// ---- interventions ---------------------------------------------------------------------------

void Checker::check_overridden(RuleId rule) {
  const auto& sentences = rule_set_.rules[rule].interventions;
  const auto say = [&](const Intervention& useless, const Intervention& other) {
    report(Code::overridden, useless.span, "`" + useless.text + "` adds nothing to `" + other.text + "`",
           {useless.operation == Operation::steer ? "equal targets count once: write one `steer` with the sum"
                                                  : "leave it out, or make it act where the other does not"})
        .related.push_back({other.span, "does all that this does"});
  };
  std::vector<bool> said(sentences.size());  // of those that never act it is said already
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    said[i] = sentences[i].condition != nullptr && !can_hold(*sentences[i].condition);
  }
  for (std::size_t later = 1; later < sentences.size(); ++later) {
    for (std::size_t earlier = 0; earlier < later && !said[later]; ++earlier) {
      if (said[earlier]) continue;
      if (overrides(rule_set_, sentences[earlier], sentences[later])) {
        say(sentences[later], sentences[earlier]);
        said[later] = true;
      } else if (overrides(rule_set_, sentences[later], sentences[earlier])) {
        say(sentences[earlier], sentences[later]);
        said[earlier] = true;
      }
    }
  }
}

/// A rule that a check names beside one that does all that it does.
void Checker::check_overridden(const std::vector<ast::Under>& under, const CheckDecl& check) {
  const auto within = [&](RuleId part, RuleId whole) {
    const auto& sentences = rule_set_.rules[part].interventions;
    const auto& others = rule_set_.rules[whole].interventions;
    return !sentences.empty() && rule_set_.rules[part].circuits.empty() &&
           std::all_of(sentences.begin(), sentences.end(), [&](const Intervention& each) {
             return std::any_of(others.begin(), others.end(),
                                [&](const Intervention& other) { return overrides(rule_set_, other, each); });
           });
  };
  std::set<RuleId> useless;
  for (const ast::Under& statement : under) {
    if (statement.kind != ast::Under::Kind::rule) continue;
    for (const ast::Name& name : statement.names) {
      const auto symbol = module_->scope.find({SymbolKind::rule, name.text});
      if (symbol == module_->scope.end()) continue;
      const RuleId id = ids_.at({symbol->second.module, symbol->second.declaration});
      const auto other = std::find_if(check.under_rules.begin(), check.under_rules.end(), [&](RuleId rule) {
        return rule != id && !useless.contains(rule) && within(id, rule);
      });
      if (other == check.under_rules.end() || !useless.insert(id).second) continue;
      report(Code::overridden, name.span,
             "rule `" + name.text + "` adds nothing to rule `" + rule_set_.rules[*other].name + "`",
             {"leave it out of `under`"})
          .related.push_back({rule_set_.rules[*other].span, "does all that it does"});
    }
  }
}

}  // namespace proviso::dsl

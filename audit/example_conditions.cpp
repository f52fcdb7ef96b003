#include "audit/example_conditions.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "dsl/condition_logic.hpp"
#include "dsl/number_text.hpp"

namespace proviso::audit {

namespace {

struct Leaf {
  dsl::Comparison comparison;
  bool at_last = false;  ///< asked at the last prompt token only
  std::string text;
};

std::string operand_text(const dsl::Operand& operand, const dsl::RuleSet& rules) {
  if (const auto* value = std::get_if<double>(&operand)) return dsl::number_text(*value);
  if (const auto* feature = std::get_if<dsl::FeatureId>(&operand)) return rules.features[*feature].name;
  const auto& quantile = std::get<dsl::Quantile>(operand);
  const std::string& set = rules.prompts[quantile.prompts].name;
  return "quantile(" + dsl::number_text(100 * quantile.p) + "%, " + (set.empty() ? "[…]" : set) + ")";
}

void collect(const dsl::Condition& condition, const dsl::RuleSet& rules, bool at_last, bool holds,
             std::vector<Leaf>& leaves) {
  const auto within = [&](const std::vector<dsl::ConditionPtr>& parts, bool last, bool positive) {
    for (const auto& part : parts) collect(*part, rules, last, positive, leaves);
  };
  if (const auto* any = std::get_if<dsl::Any>(&condition.node)) within({any->of}, false, holds);
  if (const auto* last = std::get_if<dsl::Last>(&condition.node)) within({last->of}, true, holds);
  if (const auto* negation = std::get_if<dsl::Not>(&condition.node)) within({negation->of}, at_last, !holds);
  if (const auto* all = std::get_if<dsl::And>(&condition.node)) within(all->of, at_last, holds);
  if (const auto* some = std::get_if<dsl::Or>(&condition.node)) within(some->of, at_last, holds);
  const auto* comparison = std::get_if<dsl::Comparison>(&condition.node);
  if (comparison == nullptr) return;
  Leaf leaf{*comparison, at_last, at_last ? "last " : ""};
  if (!holds) leaf.comparison.op = dsl::complement(leaf.comparison.op);
  leaf.text += operand_text(leaf.comparison.left, rules) + " " + std::string(dsl::compare_text(leaf.comparison.op)) +
               " " + operand_text(leaf.comparison.right, rules);
  const bool known =
      std::any_of(leaves.begin(), leaves.end(), [&](const Leaf& other) { return other.text == leaf.text; });
  if (!known) leaves.push_back(std::move(leaf));
}

std::vector<Leaf> leaves_of(const dsl::RuleDecl& rule, const dsl::RuleSet& rules) {
  std::vector<Leaf> leaves;
  for (const auto& sentence : rule.interventions) {
    if (sentence.condition) collect(*sentence.condition, rules, false, true, leaves);
  }
  return leaves;
}

}  // namespace

std::set<dsl::FeatureId> features_read(const dsl::RuleDecl& rule) {
  std::set<dsl::FeatureId> features;
  for (const auto& sentence : rule.interventions) {
    if (!sentence.condition) continue;
    for (const dsl::FeatureId feature : dsl::features_read(*sentence.condition)) features.insert(feature);
  }
  return features;
}

std::vector<ConditionResult> condition_results(const dsl::RuleDecl& rule, const dsl::RuleSet& rules, bool must_fire,
                                               const std::vector<const runtime::BoundPrompt*>& prompts,
                                               const Readings& readings, const QuantileValue& quantile) {
  std::vector<ConditionResult> results;
  for (const Leaf& leaf : leaves_of(rule, rules)) {
    const auto& [left, op, right] = leaf.comparison;
    const bool upwards = op == dsl::Compare::greater || op == dsl::Compare::greater_equal;
    const bool strict = op == dsl::Compare::greater || op == dsl::Compare::less;
    std::optional<ConditionResult> nearest;
    std::int64_t held = 0;
    std::vector<PromptMargin> margins;
    for (const auto* prompt : prompts) {
      const auto value = [&](const dsl::Operand& operand, std::size_t at) -> double {
        if (const auto* feature = std::get_if<dsl::FeatureId>(&operand)) return readings(*prompt, *feature)[at];
        if (const auto* number = std::get_if<double>(&operand)) return *number;
        return quantile(std::get<dsl::Quantile>(operand));
      };
      const std::size_t length = prompt->tokens.size();
      std::optional<ConditionResult> best;
      for (std::size_t at = leaf.at_last ? length - 1 : 1; at >= 1 && at < length; ++at) {
        double activation = value(left, at), threshold = value(right, at);
        const double margin = upwards ? activation - threshold : threshold - activation;
        if (!std::holds_alternative<dsl::FeatureId>(left)) std::swap(activation, threshold);
        if (best && !(margin > best->margin)) continue;
        best =
            ConditionResult{leaf.text, 0, activation, threshold, margin, static_cast<std::int64_t>(at), prompt->text};
      }
      if (!best) continue;
      margins.push_back({prompt->text, best->activation, best->margin, best->position});
      held += strict ? best->margin > 0 : best->margin >= 0;
      const bool nearer = !nearest || (must_fire ? best->margin < nearest->margin : best->margin > nearest->margin);
      if (nearer) nearest = best;
    }
    if (!nearest) continue;
    nearest->held = held;
    nearest->prompts = std::move(margins);
    results.push_back(std::move(*nearest));
  }
  return results;
}

}  // namespace proviso::audit

// Conditions: `when 0.2 < anger < 0.8 and not prompt matches /…/`.

#include <algorithm>
#include <utility>

#include "dsl/checker.hpp"

namespace proviso::dsl {
namespace {

ConditionPtr shared(Condition condition) { return std::make_shared<const Condition>(std::move(condition)); }

Span span_of_operand(const ast::Operand& operand) {
  return std::visit([](const auto& node) -> Span { return node.span; }, operand);
}

}  // namespace

/// Null where something in it is wrong; every part is read, so that all that is wrong is said.
ConditionPtr Checker::condition(const ast::Condition& node) {
  const auto joined = [&]<class Join>(const std::vector<ast::Condition>& parts, Join join) -> ConditionPtr {
    for (const ast::Condition& part : parts) join.of.push_back(condition(part));
    if (std::find(join.of.begin(), join.of.end(), nullptr) != join.of.end()) return nullptr;
    return shared({std::move(join), node.span});
  };
  struct Read {
    Checker& checker;
    const ast::Condition& node;
    const decltype(joined)& join;

    ConditionPtr operator()(const ast::Comparison& comparison) const { return checker.comparison(comparison); }
    ConditionPtr operator()(const ast::PromptMatches& matches) const {
      const auto pattern = checker.regex(matches.regex);
      return pattern ? shared({PromptMatches{*pattern}, node.span}) : nullptr;
    }
    ConditionPtr operator()(const ast::TokenIn& token) const {
      TokenIn result;
      for (const ast::String& text : token.texts) {
        if (auto value = checker.non_empty(text, "this token")) {
          result.texts.push_back(std::move(*value));
          result.spans.push_back(text.span);
        }
      }
      if (token.texts.empty()) checker.report(Code::empty_text, node.span, "no token is in an empty list");
      if (result.texts.empty() || result.texts.size() < token.texts.size()) return nullptr;
      return shared({std::move(result), node.span});
    }
    ConditionPtr operator()(const ast::Generated&) const { return shared({Generated{}, node.span}); }
    ConditionPtr operator()(const ast::Any& any) const {
      auto of = checker.condition(*any.of);
      return of ? shared({Any{std::move(of)}, node.span}) : nullptr;
    }
    ConditionPtr operator()(const ast::Last& last) const {
      auto of = checker.condition(*last.of);
      return of ? shared({Last{std::move(of)}, node.span}) : nullptr;
    }
    ConditionPtr operator()(const ast::Not& negation) const {
      auto of = checker.condition(*negation.of);
      return of ? shared({Not{std::move(of)}, node.span}) : nullptr;
    }
    ConditionPtr operator()(const ast::And& all) const { return join(all.of, And{}); }
    ConditionPtr operator()(const ast::Or& some) const { return join(some.of, Or{}); }
  };
  return std::visit(Read{*this, node, joined}, node.node);
}

/// `0.2 < anger < 0.8` is `0.2 < anger and anger < 0.8`.
ConditionPtr Checker::comparison(const ast::Comparison& node) {
  And all;
  bool sound = true;
  const ast::Operand* left = &node.left;
  for (const ast::Comparison::Link& each : node.links) {
    if (auto read = link(*left, each.op, each.right, node.span)) {
      all.of.push_back(shared(std::move(*read)));
    } else {
      sound = false;
    }
    left = &each.right;
  }
  if (!sound) return nullptr;
  if (all.of.size() == 1) return all.of.front();
  return shared({std::move(all), node.span});
}

std::optional<Condition> Checker::link(const ast::Operand& left, Compare op, const ast::Operand& right, Span span) {
  if (std::holds_alternative<ast::PositionWord>(left)) return position_link(right, op, span);
  if (std::holds_alternative<ast::PositionWord>(right)) return position_link(left, mirrored(op), span);

  const auto* left_name = std::get_if<ast::Name>(&left);
  const auto* right_name = std::get_if<ast::Name>(&right);
  if (left_name == nullptr && right_name == nullptr) {
    const ast::Operand& quantile = std::holds_alternative<ast::Call>(left) ? left : right;
    if (std::holds_alternative<ast::Call>(quantile)) {
      report(Code::quantile_without_feature, span_of_operand(quantile),
             "a quantile of what? No feature stands beside it",
             {"compare a feature with it: anger > quantile(99%, plain)"});
    } else {
      report(Code::constant_comparison, span, "two numbers are compared, so this never changes",
             {"compare a feature: anger > 0.7"});
    }
    return std::nullopt;
  }
  if (op == Compare::equal || op == Compare::not_equal) {
    report(Code::feature_equality, span,
           "features are compared by < <= > >=: an activation never equals a number exactly",
           {"say which interval is meant: 0.2 < anger < 0.8"});
    return std::nullopt;
  }
  if (left_name != nullptr && right_name != nullptr && left_name->text == right_name->text) {
    report(Code::constant_comparison, span,
           "feature `" + left_name->text + "` is compared with itself, so this never changes");
    return std::nullopt;
  }
  const auto named_feature = [&](const ast::Name* name) {
    return name != nullptr ? read_feature(find_id(SymbolKind::feature, *name), name->span) : std::nullopt;
  };
  const auto left_feature = named_feature(left_name);
  const auto right_feature = named_feature(right_name);
  const auto read = [&](const ast::Operand& side, const std::optional<FeatureId>& own,
                        const std::optional<FeatureId>& other) -> std::optional<Operand> {
    if (std::holds_alternative<ast::Name>(side)) return own ? std::optional<Operand>(*own) : std::nullopt;
    return operand(side, other);
  };
  const auto a = read(left, left_feature, right_feature);
  const auto b = read(right, right_feature, left_feature);
  if (!a || !b) return std::nullopt;
  return Condition{Comparison{*a, op, *b}, span};
}

/// A number, or a quantile of the feature that it is compared with.
std::optional<Operand> Checker::operand(const ast::Operand& node, std::optional<FeatureId> compared_with) {
  if (const auto* value = std::get_if<ast::Number>(&node)) return value->value;
  const auto& call = std::get<ast::Call>(node);
  if (call.name.text != "quantile") {
    report(Code::unknown_name, call.name.span,
           "a feature is compared with numbers, features and quantiles, not with `" + call.name.text + "(…)`",
           {"write quantile(99%, PROMPTS)"});
    return std::nullopt;
  }
  const auto given = arguments(call, {{"a share, as 99%"}, {"the prompts to take it over"}});
  if (!given) return std::nullopt;
  const auto share = number(*given->at(0), "a quantile", {.low = 0, .high = 1});
  const auto over = prompts(*given->at(1));
  if (over && empty_sets_.contains(*over)) {
    report(Code::empty_contrast, given->at(1)->span, "there is no prompt to take the quantile over");
    return std::nullopt;
  }
  if (!share || !over || !compared_with) return std::nullopt;
  return Quantile{*share, *over, *compared_with};
}

std::optional<Condition> Checker::position_link(const ast::Operand& other, Compare op, Span span) {
  const auto* index = std::get_if<ast::Number>(&other);
  if (index == nullptr) {
    report(Code::position_comparison, span_of_operand(other), "`position` is compared with whole numbers only",
           {"position >= 4"});
    return std::nullopt;
  }
  const auto value = whole(*index, "a position", {.low = 0});
  if (!value) return std::nullopt;
  return Condition{PositionIs{op, *value}, span};
}

}  // namespace proviso::dsl

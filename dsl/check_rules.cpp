// Rules: interventions, where they act, and the examples that they carry.

#include <algorithm>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/condition_logic.hpp"
#include "dsl/format.hpp"
#include "dsl/site_reach.hpp"

namespace proviso::dsl {
namespace {

void collect_reads(const ast::Condition& condition, std::vector<ast::Name>& names);

struct Reads {
  std::vector<ast::Name>& names;
  void operator()(const ast::Comparison& comparison) const {
    read(comparison.left);
    for (const ast::Comparison::Link& link : comparison.links) read(link.right);
  }
  void operator()(const ast::Any& any) const { collect_reads(*any.of, names); }
  void operator()(const ast::Last& last) const { collect_reads(*last.of, names); }
  void operator()(const ast::Not& negation) const { collect_reads(*negation.of, names); }
  void operator()(const ast::And& all) const {
    for (const ast::Condition& part : all.of) collect_reads(part, names);
  }
  void operator()(const ast::Or& some) const {
    for (const ast::Condition& part : some.of) collect_reads(part, names);
  }
  void operator()(const ast::PromptMatches&) const {}
  void operator()(const ast::TokenIn&) const {}
  void operator()(const ast::Generated&) const {}
  void read(const ast::Operand& operand) const {
    if (const auto* name = std::get_if<ast::Name>(&operand)) names.push_back(*name);
  }
};

void collect_reads(const ast::Condition& condition, std::vector<ast::Name>& names) {
  std::visit(Reads{names}, condition.node);
}

}  // namespace

void Checker::define_rule(const Work<ast::Rule>& work) {
  module_ = work.module;
  const ast::Rule& node = work.node();
  RuleDecl rule = rule_set_.rules[work.id];
  for (const ast::Intervention& each : node.interventions) {
    if (each.circuit) {
      if (auto read = circuit_suppression(each)) rule.circuits.push_back(std::move(*read));
    } else if (auto read = intervention(each)) {
      rule.interventions.push_back(std::move(*read));
    }
  }
  if (node.interventions.empty()) {
    report(Code::empty_rule, node.name.span, "rule `" + node.name.text + "` does nothing",
           {"say what it does: suppress, amplify, clamp, steer or cap a feature"});
  }
  const bool conditional = std::any_of(node.interventions.begin(), node.interventions.end(),
                                       [](const ast::Intervention& each) { return each.condition.has_value(); });
  for (const ast::Example& example : node.examples) {
    (example.fires ? rule.fires_span : rule.silent_span) = example.span;
    for (const ast::PromptsRef& reference : example.prompts) {
      const auto set = prompts(reference);
      if (!set) continue;
      const auto& opposite = example.fires ? rule.silent_on : rule.fires_on;
      if (std::find(opposite.begin(), opposite.end(), *set) != opposite.end()) {
        report(Code::contradicting_examples, ast::span_of(reference),
               "the rule must both fire and stay silent on these prompts");
      }
      (example.fires ? rule.fires_on : rule.silent_on).push_back(*set);
    }
    if (!conditional && !node.interventions.empty()) {
      report(
          Code::examples_without_condition, example.span,
          "rule `" + node.name.text + "` has no condition, so it acts on every prompt and cannot be tried by examples",
          {"add a condition (`when …`), or measure what it does in a check under it"});
    }
  }
  const auto any_sentence = [&](const auto& holds) {
    return std::any_of(rule.interventions.begin(), rule.interventions.end(),
                       [&](const Intervention& each) { return each.condition && holds(*each.condition); });
  };
  const bool later_only =
      !any_sentence(can_hold_on_prompt) && any_sentence([](const Condition& condition) { return can_hold(condition); });
  if (!rule.fires_on.empty() && later_only && rule.interventions.size() == node.interventions.size()) {
    report(Code::never_holds, rule.fires_span,
           "rule `" + node.name.text +
               "` acts on generated tokens only, and examples are prompts, on which it never fires",
           {"leave `fires on` out, and measure what the rule does in a check under it"});
  }
  rule_set_.rules[work.id] = std::move(rule);
  for (Diagnostic& diagnostic : contradictions(rule_set_, {work.id})) diagnostics_.push_back(std::move(diagnostic));
  check_overridden(work.id);
}

std::optional<Intervention> Checker::intervention(const ast::Intervention& node) {
  Intervention result;
  result.operation = node.operation;
  result.text = canonical_text(node);
  result.span = node.span;
  bool sound = true;
  const std::string operation(operation_name(node.operation));
  if (node.amount) {
    // The share that `suppress` removes; any number of calibrated units for the others.
    const Limits limits = node.operation == Operation::suppress ? Limits{.low = 0, .high = 1} : Limits{};
    const auto amount = number(*node.amount, "what `" + operation + "` takes", limits);
    if (amount) result.amount = *amount;
    sound &= amount.has_value();
  }
  result.sites.assign(node.sites.begin(), node.sites.end());
  if (node.condition) {
    result.condition = condition(**node.condition);
    result.condition_text = canonical_text(**node.condition);
    sound &= result.condition != nullptr;
    if (result.condition) check_holding(*result.condition);
  }
  const auto id = find_id(SymbolKind::feature, node.feature);
  const FeatureDecl* feature = id ? sound_feature(*id) : nullptr;
  if (feature == nullptr) return std::nullopt;
  result.feature = *id;
  if (std::holds_alternative<Subspace>(feature->constructor) && node.operation != Operation::suppress) {
    report(
        Code::subspace_activation, node.span,
        "subspace `" + node.feature.text + "` has no activation of its own, so it can be suppressed and nothing else",
        {"write suppress " + node.feature.text + ", or " + operation + " one of the features that span it"});
    sound = false;
  }
  sound &= check_widths(node.feature, *feature, node.sites);
  check_order(node, result);
  if (!sound) return std::nullopt;
  const double idle = node.operation == Operation::amplify ? 1 : 0;
  const bool moves = node.operation == Operation::clamp || node.operation == Operation::cap;
  if (node.amount && !moves && result.amount == idle) {
    report(Code::no_effect, node.span,
           "`" + result.text + "` asks for the activation that is there: by itself it changes nothing",
           {"say how much it is to change, or leave it out"});
  }
  return result;
}

std::optional<CircuitSuppression> Checker::circuit_suppression(const ast::Intervention& node) {
  bool sound = true;
  const auto refuse = [&](Span span, const std::string& what, const std::string& cure) {
    report(Code::circuit_intervention, span, what, {cure});
    sound = false;
  };
  if (node.operation != Operation::suppress) {
    refuse(node.span, "a circuit has no activation to " + std::string(operation_name(node.operation)),
           "take out what it carries: suppress circuit " + node.feature.text);
  }
  if (!node.sites.empty())
    refuse(node.sites.front().span, "a circuit acts where its nodes write, and nowhere else",
           "leave `at` out of the sentence");
  if (node.condition)
    refuse((*node.condition)->span, "a circuit is suppressed at every position from 1 on, whatever holds there",
           "leave `when` out of the sentence");
  const auto id = find_id(SymbolKind::circuit, node.feature);
  if (!id) return std::nullopt;
  if (refused_latents(*id, node.span, "`" + node.feature.text + "` has latents for nodes, which no head or MLP writes"))
    return std::nullopt;
  CircuitSuppression result{*id, 1, canonical_text(node), node.span};
  if (node.amount && node.operation == Operation::suppress) {
    const auto share = number(*node.amount, "what `suppress` takes", {.low = 0, .high = 1});
    if (share) result.share = *share;
    sound &= share.has_value();
    if (share && *share == 0) {
      report(Code::no_effect, node.span, "`" + result.text + "` takes nothing out: by itself it changes nothing",
             {"say how much is to be taken out, or leave it out"});
    }
  }
  if (!sound) return std::nullopt;
  return result;
}

bool Checker::check_widths(const ast::Name& name, const FeatureDecl& feature, const std::vector<ast::Site>& sites) {
  bool sound = true;
  if (std::holds_alternative<Latent>(feature.constructor)) {
    if (sites.empty()) return true;
    report(Code::latent_site, sites.front().span,
           "latent `" + name.text + "` acts where its autoencoder says, and nowhere else",
           {"leave `at` out of the intervention"});
    return false;
  }
  for (const ast::Site& site : sites) {
    if (width_name(site) == width_name(*feature.site)) continue;
    report(Code::width_mismatch, site.span,
           "feature `" + name.text + "` has the width of " + width_name(*feature.site) + ", and " + to_string(site) +
               " that of " + width_name(site),
           {"it was built at " + to_string(*feature.site) + " and acts at sites of the same width"});
    sound = false;
  }
  return sound;
}

/// A condition is read before its intervention's site is written: at that site or earlier.
void Checker::check_order(const ast::Intervention& node, const Intervention& intervention) {
  if (!node.condition) return;
  if (intervention.sites.empty() && rule_set_.features[intervention.feature].choice) return;
  std::optional<Site> first;
  for (const SiteSpec& spec : sites_of(rule_set_, intervention)) {
    const Site site = earliest(spec);
    if (!first || reached_before(site, *first)) first = site;
  }
  if (!first) return;  // where a latent acts is known once a model is
  std::vector<ast::Name> reads;
  collect_reads(**node.condition, reads);
  for (const ast::Name& name : reads) {
    const auto symbol = module_->scope.find({SymbolKind::feature, name.text});
    if (symbol == module_->scope.end()) continue;
    const FeatureDecl* feature = sound_feature(ids_.at({symbol->second.module, symbol->second.declaration}));
    // What the model is to choose is looked at once it is known.
    if (feature == nullptr || !feature->site || feature->choice) continue;
    const Site read = dsl::whole(earliest(*feature->site));
    if (!reached_before(*first, read)) continue;
    report(Code::read_after_intervention, name.span,
           "feature `" + name.text + "` is read at " + to_string(read) + ", after this intervention at " +
               to_string(*first),
           {"move the intervention to " + to_string(read) + " or later, or read " + name.text + " at " +
            to_string(*first) + " or earlier"})
        .related.push_back({feature->span, "`" + name.text + "` is declared here"});
  }
}

}  // namespace proviso::dsl

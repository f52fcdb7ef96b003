// Expectations: whether the bound, the confidence and the sweeps suit the metric.

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/format.hpp"
#include "dsl/metric_traits.hpp"
#include "dsl/number_text.hpp"

namespace proviso::dsl {
namespace {

std::string end_text(double value, bool share) { return share ? number_text(100 * value) + "%" : number_text(value); }

std::string range_text(const MetricTraits& traits) {
  if (std::isinf(traits.high)) return "at least " + end_text(traits.low, traits.share);
  return "between " + end_text(traits.low, traits.share) + " and " + end_text(traits.high, traits.share);
}

bool samples_text(const Metric& metric) {
  if (const auto* effect = std::get_if<metric::Effect>(&metric.node)) return samples_text(*effect->on);
  const auto* rate = std::get_if<metric::Rate>(&metric.node);
  return rate != nullptr && rate->temperature > 0;
}

}  // namespace

std::optional<Expectation> Checker::expectation(const ast::Expectation& node) {
  auto measured = metric(node.metric);
  if (!measured) return std::nullopt;
  Expectation result{.metric = std::move(*measured),
                     .op = node.op,
                     .bound = node.bound.value,
                     .confidence = std::nullopt,
                     .relative = node.relative,
                     .beyond_control = node.beyond_control,
                     .across = {},
                     .text = canonical_text(node),
                     .span = node.span};
  bool sound = true;
  if ((node.relative || node.beyond_control) && !std::holds_alternative<metric::Effect>(result.metric.node)) {
    report(Code::only_with_effect, node.span,
           std::string(node.relative ? "`relative`" : "`beyond control`") + " is said of an effect, and `" +
               node.metric.name.text + "` is none",
           {node.relative ? "measure a change: effect(CHANGE, on: METRIC) <= -10% relative; or use perplexity_rise(P)"
                          : "measure a change: effect(CHANGE, on: METRIC) <= -10% beyond control"});
    sound = false;
  }
  sound = sound && check_bound(node, result) && check_confidence(node, result);
  sound = across(node, result) && sound;
  if (!sound) return std::nullopt;
  return result;
}

bool Checker::check_bound(const ast::Expectation& node, const Expectation& expectation) {
  const auto* effect = std::get_if<metric::Effect>(&expectation.metric.node);
  const MetricTraits range =
      expectation.relative && effect != nullptr ? relative_traits(*effect) : traits(expectation.metric);
  const std::string name = "`" + node.metric.name.text + "`";
  const double bound = expectation.bound;

  if (bound < range.low || bound > range.high) {
    Diagnostic& found = report(Code::bound_out_of_range, node.bound.span,
                               name + " is always " + range_text(range) + ", never " + node.bound.text);
    if (range.share && !node.bound.percent && std::abs(bound) <= 100) {
      found.help.push_back("did you mean " + node.bound.text + "%?");
      found.fixes.push_back({node.bound.span, node.bound.text + "%"});
    }
    return false;
  }
  const bool always = (node.op == Compare::greater_equal && bound == range.low) ||
                      (node.op == Compare::less_equal && bound == range.high);
  const bool never =
      (node.op == Compare::less && bound == range.low) || (node.op == Compare::greater && bound == range.high);
  const bool no_interval = node.op == Compare::equal || node.op == Compare::not_equal ||
                           (range.open && (bound == range.low || bound == range.high) && !always);
  if (node.confidence && no_interval) {
    report(
        Code::bound_beyond_interval, node.bound.span,
        "no interval of " + name + " lies within `" + std::string(compare_text(node.op)) + " " + node.bound.text + "`",
        {"choose a bound inside the range, as 95%, or leave the confidence out and compare the estimate"});
    return false;
  }
  if (always || never) {
    report(Code::trivial_bound, node.bound.span,
           name + " is always " + range_text(range) + ", so this " + (always ? "passes" : "fails") +
               " whatever is measured");
  }
  return true;
}

bool Checker::check_confidence(const ast::Expectation& node, Expectation& expectation) {
  if (!node.confidence) return true;
  if (!traits(expectation.metric).sampled) {
    const bool effect = std::holds_alternative<metric::Effect>(expectation.metric.node);
    report(Code::confidence_without_sampling, node.confidence->span,
           (effect ? "an effect on `max`" : "`" + node.metric.name.text + "`") + " has no interval to be confident of",
           {"leave `at " + node.confidence->text + " confidence` out: the value itself is compared"});
    return false;
  }
  const auto level = number(*node.confidence, "a confidence", {.low = 0.5, .high = 0.9999});
  expectation.confidence = level;
  return level.has_value();
}

bool Checker::anything_random(const Expectation& expectation) const {
  const auto generates_prefixes = [](const MethodCall& method) {
    return traits(method.method).subject == EditSubject::facts && !method.parameters.contains("seed");
  };
  const auto random_edit = [&](EditId id) { return generates_prefixes(rule_set_.edits[id].method); };
  const auto& ablations = expectation.across.ablations;
  const bool resamples = std::ranges::find(ablations, Ablation::resample) != ablations.end();
  // A circuit's corrupt prompts are named, and nothing is drawn.
  if (expectation.beyond_control || samples_text(expectation.metric) ||
      (resamples && !measured_circuit(expectation.metric))) {
    return true;
  }
  const auto* effect = std::get_if<metric::Effect>(&expectation.metric.node);
  if (effect != nullptr) {
    const auto* patch = std::get_if<Patch>(&effect->change);
    if (patch != nullptr && patch->source == Patch::Source::resample) return true;
    const auto* change = std::get_if<ChangeEdit>(&effect->change);
    if (change != nullptr && random_edit(change->edit)) return true;
  }
  if (edit_ != nullptr) return generates_prefixes(edit_method_);
  return check_ != nullptr && (std::ranges::any_of(check_->under_edits, random_edit) ||
                               std::ranges::any_of(check_->under_attacks, &Attack::random));
}

bool Checker::across(const ast::Expectation& node, Expectation& expectation) {
  using Read = bool (Checker::*)(const ast::Call&, Expectation&);
  // Seeds last: whether anything is random depends on the others.
  static constexpr std::pair<std::string_view, Read> kSweeps[] = {{"ablation", &Checker::across_ablations},
                                                                  {"paraphrases", &Checker::across_paraphrases},
                                                                  {"seeds", &Checker::across_seeds}};
  bool sound = true;
  for (const auto& [name, read] : kSweeps) {
    const ast::Call* first = nullptr;
    for (const ast::Call& sweep : node.across) {
      if (sweep.name.text != name) continue;
      if (first != nullptr) {
        report(Code::repeated_argument, sweep.span, "`" + sweep.name.text + "` is given twice");
        sound = false;
        continue;
      }
      first = &sweep;
      sound &= (this->*read)(sweep, expectation);
    }
  }
  for (const ast::Call& sweep : node.across) {
    const std::string& name = sweep.name.text;
    if (std::ranges::any_of(kSweeps, [&](const auto& known) { return known.first == name; })) continue;
    auto fixes = spelling_fix(sweep.name.span, name, {"seeds", "ablation", "paraphrases"});
    report(Code::sweep_misfit, sweep.name.span, "nothing is repeated across `" + name + "`",
           {fixes.empty() ? "repeat across seeds(N), ablation(zero, mean, resample) or paraphrases(P)"
                          : "did you mean `" + fixes.front().replacement + "`?"})
        .fixes = std::move(fixes);
    sound = false;
  }
  return sound;
}

bool Checker::across_seeds(const ast::Call& sweep, Expectation& expectation) {
  const auto given = arguments(sweep, {{"how many seeds"}});
  const auto seeds =
      given ? whole(*given->at(0), "how many seeds are tried", {.low = 1, .high = 10'000}) : std::nullopt;
  if (!seeds) return false;
  expectation.across.seeds = *seeds;
  if (anything_random(expectation)) return true;
  report(Code::nothing_random, sweep.span, "nothing is random here, so every seed measures the same",
         {"`seeds` suits sampled generation (temperature: T), random attacks, `beyond control`, `resample`, and edits "
          "whose method generates prefixes"});
  return false;
}

/// What other prompts give cannot be taken under an attack by vectors.
bool Checker::perturbed(const Span& span) {
  const auto perturbs = [](const Attack& attack) { return attack.kind == AttackKind::perturb; };
  if (check_ == nullptr || std::ranges::none_of(check_->under_attacks, perturbs)) return false;
  report(Code::sweep_misfit, span, "what `perturb` adds stands at positions, and other prompts have others",
         {"measure the ablations in a check of their own, without `perturb`"});
  return true;
}

bool Checker::across_ablations(const ast::Call& sweep, Expectation& expectation) {
  if (sweep.arguments.empty()) {
    report(Code::missing_argument, sweep.span, "`ablation` needs at least one of zero, mean and resample");
    return false;
  }
  if (perturbed(sweep.span)) return false;
  std::vector<Ablation>& ablations = expectation.across.ablations;
  for (const ast::Argument& argument : sweep.arguments) {
    const auto chosen = word(argument, {kAblationNames[0], kAblationNames[1], kAblationNames[2]});
    if (!chosen) return false;
    const auto at = std::ranges::find(kAblationNames, std::string_view(*chosen)) - std::begin(kAblationNames);
    if (std::ranges::find(ablations, static_cast<Ablation>(at)) != ablations.end()) {
      report(Code::repeated_argument, argument.span, "`" + *chosen + "` is given twice");
      return false;
    }
    ablations.push_back(static_cast<Ablation>(at));
  }
  if (measured_circuit(expectation.metric)) return true;
  const auto* effect = std::get_if<metric::Effect>(&expectation.metric.node);
  if (effect == nullptr || std::holds_alternative<ChangeEdit>(effect->change)) {
    report(Code::sweep_misfit, sweep.span, "`ablation` says how a feature is taken out, and nothing is taken out here",
           {"measure a change: effect(suppress F, on: METRIC), or what a circuit carries: faithfulness(C)"});
    return false;
  }
  const auto takes_out = [](const Intervention& each) {
    return each.operation == Operation::suppress && each.amount == 1;
  };
  const auto* sentence = std::get_if<Intervention>(&effect->change);
  const auto* named = std::get_if<ChangeRule>(&effect->change);
  const RuleDecl* rule = named != nullptr ? &rule_set_.rules[named->rule] : nullptr;
  const bool whole_features = sentence != nullptr ? takes_out(*sentence)
                                                  : rule != nullptr && rule->circuits.empty() &&
                                                        std::ranges::all_of(rule->interventions, takes_out);
  if (whole_features) return true;
  report(Code::sweep_misfit, sweep.span, "`ablation` takes features out whole, and this change does something else",
         {"measure a change that only suppresses: effect(suppress F, on: METRIC), without `by`"});
  return false;
}

bool Checker::across_paraphrases(const ast::Call& sweep, Expectation& expectation) {
  return each_prompt_set(sweep, [&](PromptsId set, Span span) {
    const Metric& metric = expectation.metric;
    const std::size_t sets = prompt_sets(metric).size();
    if (sets != 1) {
      report(Code::sweep_misfit, sweep.span,
             "`paraphrases` stands in for a metric's one set of prompts, and this metric has " + std::to_string(sets));
      return false;
    }
    if (prompt_sets(metric).front() == set || std::ranges::count(expectation.across.paraphrases, set) > 0) {
      report(Code::repeated_argument, span, "this set is measured already",
             {"`paraphrases` measures the expectation's own set, too; name others"});
      return false;
    }
    const auto* effect = std::get_if<metric::Effect>(&metric.node);
    const auto& measured = effect != nullptr ? effect->on->node : metric.node;
    const bool compares =
        std::holds_alternative<metric::Accuracy>(measured) || std::holds_alternative<metric::Specificity>(measured);
    if (compares && !require_answers(set, span, metric.text.substr(0, metric.text.find('(')))) return false;
    if (const auto feature = measured_feature(metric))
      check_training(*feature, {set}, span, Code::measured_on_training);
    expectation.across.paraphrases.push_back(set);
    return true;
  });
}

}  // namespace proviso::dsl

// Expectations: whether the bound, the confidence and the sweeps suit the metric.

#include <algorithm>
#include <cmath>
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

/// The sets of prompts that a metric is measured on.
std::size_t set_count(const Metric& metric) {
  if (const auto* effect = std::get_if<metric::Effect>(&metric.node)) return set_count(*effect->on);
  if (std::holds_alternative<metric::Auroc>(metric.node)) return 2;
  const bool none =
      std::holds_alternative<metric::Cosine>(metric.node) || std::holds_alternative<metric::Efficacy>(metric.node);
  return none ? 0 : 1;
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
  if (!node.across.empty()) {
    refuse_across(node, result);
    return std::nullopt;
  }
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
    std::vector<std::string> help;
    if (range.share && !node.bound.percent && std::abs(bound) <= 100)
      help.push_back("did you mean " + node.bound.text + "%?");
    report(Code::bound_out_of_range, node.bound.span,
           name + " is always " + range_text(range) + ", never " + node.bound.text, std::move(help));
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
  if (expectation.beyond_control || samples_text(expectation.metric)) return true;
  if (edit_ != nullptr)
    return edit_->method && edit_->method->method.name.text == "rome";  // its prefixes are generated
  return check_ != nullptr && std::any_of(check_->under_edits.begin(), check_->under_edits.end(), [&](EditId edit) {
           return rule_set_.edits[edit].method.method == EditMethod::rome;
         });
}

/// What is wrong with the sweeps is said; what is right with them is not yet built.
void Checker::refuse_across(const ast::Expectation& node, const Expectation& expectation) {
  bool sound = true;
  for (const ast::Call& sweep : node.across) sound &= check_sweep(sweep, expectation);
  if (!sound) return;
  not_yet_built(node.across.front().span, "`across`", {"write one expectation for each variant"});
}

bool Checker::check_sweep(const ast::Call& sweep, const Expectation& expectation) {
  const std::string& name = sweep.name.text;
  if (name == "seeds") {
    const auto given = arguments(sweep, {{"how many seeds"}});
    if (!given || !whole(*given->at(0), "how many seeds are tried", {.low = 1, .high = 10'000})) return false;
    if (anything_random(expectation)) return true;
    report(Code::nothing_random, sweep.span, "nothing is random here, so every seed measures the same",
           {"`seeds` suits sampled generation (temperature: T), `beyond control`, and edits by rome"});
    return false;
  }
  if (name == "ablation") {
    if (sweep.arguments.empty()) {
      report(Code::missing_argument, sweep.span, "`ablation` needs at least one of zero, mean and resample");
      return false;
    }
    for (const ast::Argument& argument : sweep.arguments) {
      if (!word(argument, {"zero", "mean", "resample"})) return false;
    }
    const auto* effect = std::get_if<metric::Effect>(&expectation.metric.node);
    if (effect != nullptr && !std::holds_alternative<ChangeEdit>(effect->change)) return true;
    report(Code::sweep_misfit, sweep.span, "`ablation` says how a feature is taken out, and nothing is taken out here",
           {"measure a change: effect(suppress F, on: METRIC)"});
    return false;
  }
  if (name == "paraphrases") {
    const auto given = arguments(sweep, {{"a set of prompts"}});
    if (!given || !prompts(*given->at(0))) return false;
    if (set_count(expectation.metric) == 1) return true;
    report(Code::sweep_misfit, sweep.span,
           "`paraphrases` stands in for a metric's one set of prompts, and this metric has " +
               std::to_string(set_count(expectation.metric)));
    return false;
  }
  const auto nearest = nearest_name(name, {"seeds", "ablation", "paraphrases"});
  report(Code::sweep_misfit, sweep.name.span, "nothing is repeated across `" + name + "`",
         {nearest ? "did you mean `" + *nearest + "`?"
                  : "repeat across seeds(N), ablation(zero, mean, resample) or paraphrases(P)"});
  return false;
}

}  // namespace proviso::dsl

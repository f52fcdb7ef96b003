#include "audit/expectations.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "audit/verdict.hpp"

namespace proviso::audit {

namespace {

constexpr double kReportedConfidence = 0.95;

/// The numbers of one expectation, asked of either source.
struct Numbers {
  Values before;                          ///< of an effect: without the change
  Values after;                           ///< the metric itself, or with the change
  std::vector<Values> controls;           ///< of an effect
  std::optional<Values> baseline;         ///< under nothing
  std::optional<Values> baseline_before;  ///< of an effect, under nothing and without the change
};

const dsl::metric::Effect* effect_of(const dsl::Expectation& expectation) {
  return std::get_if<dsl::metric::Effect>(&expectation.metric.node);
}

/// Edits whose facts an effect's metric is about: those in force, and the change if it is an edit.
std::vector<dsl::EditId> edits_with(std::vector<dsl::EditId> edits, const dsl::metric::Effect* effect) {
  if (!effect) return edits;
  if (const auto* change = std::get_if<dsl::ChangeEdit>(&effect->change)) edits.push_back(change->edit);
  return edits;
}

Numbers numbers(const dsl::Expectation& expectation, const Under& under, const runtime::BoundRules& bound,
                runtime::PlanBuilder& builder, EvidenceSource& source) {
  Numbers numbers;
  const auto* effect = effect_of(expectation);
  const dsl::Metric& metric = effect ? *effect->on : expectation.metric;
  const auto edits = edits_with(under.edits, effect);
  const auto in = [&](runtime::StateId state) { return measure(metric, {state, edits}, bound, source); };
  if (!effect) {
    if (!under.empty()) numbers.baseline = in(builder.loaded());
    numbers.after = in(builder.state(under.edits, under.rules));
    return numbers;
  }
  if (!under.empty()) {
    numbers.baseline_before = in(builder.loaded());
    numbers.baseline = in(builder.state({}, {}, &effect->change));
  }
  numbers.before = in(builder.state(under.edits, under.rules));
  const auto treated = builder.state(under.edits, under.rules, &effect->change);
  numbers.after = in(treated);
  for (std::int64_t i = 0; i < effect->controls; ++i) numbers.controls.push_back(in(builder.control(treated, i)));
  return numbers;
}

/// Why the number shows nothing, or "".
std::string vacuous(const ReadContext& c, const Numbers& n) {
  for (const Values* values : {&n.before, &n.after}) {
    if (values->empty_set) return "a set that it is measured on is empty";
    if (values->one_value) return "the feature reads one value on all prompts";
  }
  const auto* effect = effect_of(c.expectation);
  if (!effect && n.after.with_itself) return "the model as loaded is compared with itself";
  const auto state = c.builder.state(c.under.edits, c.under.rules, effect ? &effect->change : nullptr);
  const auto& edit_changed = c.evidence.state(state).edit_changed;
  const auto& edits = c.plan.states[state].edits;
  for (std::size_t i = 0; i < edits.size(); ++i) {
    if (!edit_changed[i]) return "edit " + c.bound.rules->edits[edits[i]].name + " changed no byte";
  }
  const auto& sentences = c.plan.states[state].sentences;
  if (!sentences.empty() && std::holds_alternative<dsl::metric::Cosine>(c.expectation.metric.node)) {
    return "a cosine is of directions, which no rule changes";
  }
  std::map<std::string, bool> changed;  // by rule; the change of an effect apart
  const std::string kChange = "the change of the effect";
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    auto& by = changed[sentences[i].of_change ? kChange : "rule " + sentences[i].rule];
    by = by || c.source.changed(state, i);
  }
  for (const auto& [what, did] : changed) {
    if (!did) return what + " changed no vector";
  }
  return "";
}

std::string refused(const ReadContext& c) {
  auto edits = edits_with(c.under.edits, effect_of(c.expectation));
  if (edits.empty()) return "";
  for (const auto& edit : c.session.solve(edits)) {
    if (!edit.refused.empty()) return "edit " + c.bound.rules->edits[edit.edit].name + ": " + edit.refused;
  }
  return "";
}

Control control(const Numbers& n, double effect, bool relative, std::uint64_t seed) {
  std::vector<double> effects;
  for (const auto& values : n.controls) {
    effects.push_back(estimate_difference(n.before, values, relative, kReportedConfidence, seed).value);
  }
  Control control;
  control.n = static_cast<std::int64_t>(effects.size());
  control.value = std::accumulate(effects.begin(), effects.end(), 0.0) / static_cast<double>(effects.size());
  double squares = 0;
  for (double e : effects) squares += (e - control.value) * (e - control.value);
  control.spread = effects.size() > 1 ? std::sqrt(squares / static_cast<double>(effects.size() - 1)) : 0;
  control.rank =
      1 + std::count_if(effects.begin(), effects.end(), [&](double e) { return std::abs(e) >= std::abs(effect); });
  control.p = t_test_against(effect, effects);
  control.p_holm = control.p;
  return control;
}

/// The prompts that speak most against the expectation, then prompt order.
std::vector<Evidence> worst_prompts(const dsl::Expectation& expectation, const Values& measured,
                                    const std::vector<PromptValue>* before) {
  const auto& values = measured.values;
  const bool perplexity = measured.kind == Values::Kind::perplexity || measured.kind == Values::Kind::perplexity_rise;
  // A text's own perplexity: its sample holds the total loss of its tokens.
  const auto shown = [&](const PromptValue& value) {
    return perplexity ? std::exp(value.sample.value / value.sample.weight) : value.sample.value;
  };
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const bool paired = before && before->size() == values.size();
  const bool effect = effect_of(expectation) != nullptr;
  const auto badness = [&](std::size_t i) {
    double value = shown(values[i]);
    if (effect && paired) value -= shown((*before)[i]);
    if (measured.kind == Values::Kind::perplexity_rise && !effect && paired) value /= shown((*before)[i]);
    const bool low_is_good = expectation.op == dsl::Compare::less || expectation.op == dsl::Compare::less_equal;
    return low_is_good ? value : -value;
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return badness(a) > badness(b); });
  std::vector<Evidence> worst;
  for (std::size_t i : order) {
    if (worst.size() == kEvidenceShown) break;
    if (!values[i].prompt) continue;
    Evidence evidence;
    evidence.prompt = values[i].prompt->text;
    if (paired) evidence.before = shown((*before)[i]);
    evidence.after = shown(values[i]);
    evidence.output = values[i].output;
    worst.push_back(std::move(evidence));
  }
  return worst;
}

}  // namespace

void ask(const dsl::Expectation& expectation, const Under& under, const runtime::BoundRules& bound,
         runtime::PlanBuilder& builder, EvidenceSource& source) {
  numbers(expectation, under, bound, builder, source);
}

Measured read(const ReadContext& c) {
  Measured measured;
  measured.expectation = &c.expectation;
  auto& result = measured.result;
  result.text = c.expectation.text;
  result.asked_confidence = c.expectation.confidence;
  const auto settle = [&](Status status, std::string reason) {
    measured.settled = true;
    result.status = status;
    result.reason = std::move(reason);
  };
  result.estimate.value = std::nan("");
  if (std::string why = refused(c); !why.empty()) {
    settle(Status::error, std::move(why));
    return measured;
  }

  c.source.forget();
  const Numbers n = numbers(c.expectation, c.under, c.bound, c.builder, c.source);
  if (!n.after.broken.empty()) {
    settle(Status::error, n.after.broken);
    return measured;
  }
  if (!c.source.finite()) {
    settle(Status::error, "the model's numbers are NaN or infinite here");
    return measured;
  }
  const double confidence = c.expectation.confidence.value_or(kReportedConfidence);
  const bool relative = c.expectation.relative;
  const auto* effect = effect_of(c.expectation);
  result.estimate = effect ? estimate_difference(n.before, n.after, relative, confidence, c.seed)
                           : estimate(n.after, confidence, c.seed);
  if (n.baseline) {
    result.baseline = n.baseline_before
                          ? estimate_difference(*n.baseline_before, *n.baseline, relative, confidence, c.seed).value
                          : estimate(*n.baseline, confidence, c.seed).value;
  }
  if (effect && !n.controls.empty()) result.control = control(n, result.estimate.value, relative, c.seed);
  const auto* before = effect ? &n.before.values : n.baseline ? &n.baseline->values : nullptr;
  result.evidence = worst_prompts(c.expectation, n.after, before);
  if (std::string why = vacuous(c, n); !why.empty()) settle(Status::vacuous, std::move(why));
  return measured;
}

void correct(std::vector<Measured>& measured) {
  std::vector<Control*> controls;
  std::vector<double> p;
  for (auto& one : measured) {
    if (!one.result.control) continue;
    controls.push_back(&*one.result.control);
    p.push_back(one.result.control->p);
  }
  const auto corrected = holm(p);
  for (std::size_t i = 0; i < controls.size(); ++i) controls[i]->p_holm = corrected[i];
}

ExpectationResult judge(const Measured& measured) {
  ExpectationResult result = measured.result;
  if (measured.settled) return result;
  auto [status, reason] = decide(claim_of(*measured.expectation), result.estimate, result.control);
  result.status = status;
  result.reason = std::move(reason);
  return result;
}

}  // namespace proviso::audit

#include "audit/expectations.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <utility>

#include "audit/under_attack.hpp"
#include "audit/verdict.hpp"
#include "runtime/formats/sha256.hpp"

namespace proviso::audit {

namespace {

constexpr double kReportedConfidence = 0.95;
/// Draws of positions that an effect is shown beside, at most.
constexpr std::int64_t kPositionControls = 8;

/// One of the combinations that `across` asks for; of an expectation without it, the only one.
struct Combination {
  std::string name;                                ///< "seed 1, ablation mean, as written"
  std::uint64_t seed = 0;                          ///< added to the run's
  std::optional<dsl::Ablation> ablation = {};      ///< how a change takes features out, or a circuit its other edges
  std::optional<dsl::PromptsId> paraphrases = {};  ///< in place of the metric's one set
};

std::vector<Combination> combinations(const dsl::Across& across, const runtime::BoundRules& bound) {
  std::vector<Combination> all;
  std::vector<std::optional<dsl::Ablation>> ablations(across.ablations.begin(), across.ablations.end());
  if (ablations.empty()) ablations.emplace_back();
  const auto add = [&](std::uint64_t seed, std::optional<dsl::Ablation> ablation,
                       std::optional<dsl::PromptsId> paraphrases, const std::string& prompts) {
    std::string name = across.seeds > 0 ? "seed " + std::to_string(bound.seed + seed) : "";
    if (ablation) name += (name.empty() ? "ablation " : ", ablation ") + std::string(dsl::ablation_name(*ablation));
    if (!prompts.empty()) name += (name.empty() ? "" : ", ") + prompts;
    all.push_back({std::move(name), seed, ablation, paraphrases});
  };
  for (std::int64_t seed = 0; seed < std::max<std::int64_t>(1, across.seeds); ++seed) {
    const auto offset = static_cast<std::uint64_t>(seed);
    for (const auto& ablation : ablations) {
      add(offset, ablation, std::nullopt, across.paraphrases.empty() ? "" : "as written");
      for (std::size_t i = 0; i < across.paraphrases.size(); ++i) {
        const std::string& name = bound.rules->prompts[across.paraphrases[i]].name;
        add(offset, ablation, across.paraphrases[i], name.empty() ? "paraphrases " + std::to_string(i + 1) : name);
      }
    }
  }
  return all;
}

/// The numbers of one expectation, asked of either source.
struct Numbers {
  runtime::StateId state = 0;             ///< that it is measured in: of an effect, with the change
  Values before;                          ///< of an effect: without the change
  Values after;                           ///< the metric itself, or with the change
  std::vector<Values> controls;           ///< of an effect: random directions
  std::optional<Values> wrong_sign;       ///< of an effect: the change turned round
  std::vector<Values> positions;          ///< of an effect that no edit makes: the change at other positions
  std::optional<Values> baseline;         ///< under nothing
  std::optional<Values> baseline_before;  ///< of an effect, under nothing and without the change
};

const dsl::metric::Effect* effect_of(const dsl::Expectation& expectation) {
  return std::get_if<dsl::metric::Effect>(&expectation.metric.node);
}

/// Edits whose facts a metric is about.
std::vector<dsl::EditId> edits_meant(const Under& under) { return under.of ? std::vector{*under.of} : under.edits; }

/// The same of an effect's metric, whose change may be one.
std::vector<dsl::EditId> edits_with(std::vector<dsl::EditId> edits, const dsl::metric::Effect* effect) {
  if (!effect) return edits;
  if (const auto* change = std::get_if<dsl::ChangeEdit>(&effect->change)) edits.push_back(change->edit);
  return edits;
}

runtime::StateId state_under(const Under& under, const dsl::Change* change, std::uint64_t seed,
                             runtime::PlanBuilder& builder) {
  runtime::Beside beside;
  beside.attacks = under.attacks;
  beside.as_written = under.as_written && seed == 0;  // edits are written as they come by the run's own seed
  return builder.state(under.edits, under.rules, change, seed, beside);
}

/// What becomes of the rules of a check that is under attack; of an effect, of those in force beside the change.
RulesUnderAttack silenced(const dsl::Expectation& expectation, const Numbers& numbers, const Combination& combination,
                          const Under& under, const runtime::BoundRules& bound, runtime::PlanBuilder& builder,
                          EvidenceSource& source) {
  if (!under.attacks || under.rules.empty()) return {};
  const auto* effect = effect_of(expectation);
  return rules_under_attack(effect ? *effect->on : expectation.metric, effect ? numbers.before : numbers.after,
                            builder.state(under.edits, under.rules, nullptr, combination.seed),
                            state_under(under, nullptr, combination.seed, builder), bound, builder, source);
}

/// What an effect's change puts in where it takes features out, of the prompts that its metric is measured on.
runtime::PlannedSource ablation_source(dsl::Ablation kind, const dsl::Metric& metric, const Subject& subject,
                                       const runtime::BoundRules& bound, runtime::PlanBuilder& builder) {
  runtime::PlannedSource planned{kind};
  if (kind == dsl::Ablation::zero) return planned;
  for (const auto* prompts : measured_prompts(metric, subject, bound)) {
    auto& set = planned.sets.emplace_back();
    for (const auto& prompt : *prompts) {
      const auto id = builder.sequence(prompt);
      const auto is_same = [&](const auto other) { return builder.plan().sequences[other].tokens == prompt.tokens; };
      if (std::ranges::none_of(set, is_same)) set.push_back(id);
    }
  }
  return planned;
}

/// The same where it patches.
runtime::PlannedSource patch_source(const dsl::Patch& patch, const dsl::Metric& metric, const Subject& subject,
                                    const runtime::BoundRules& bound, runtime::PlanBuilder& builder) {
  switch (patch.source) {
    case dsl::Patch::Source::zero:
      return {dsl::Ablation::zero};
    case dsl::Patch::Source::resample:
      return ablation_source(dsl::Ablation::resample, metric, subject, bound, builder);
    case dsl::Patch::Source::mean: {
      std::vector<runtime::SequenceId> from;
      for (const auto& prompt : bound.prompts[patch.from]) {
        const auto id = builder.sequence(prompt);
        if (std::ranges::find(from, id) == from.end()) from.push_back(id);
      }
      return {dsl::Ablation::mean, {std::move(from)}};
    }
    case dsl::Patch::Source::prompts:
      break;
  }
  runtime::PlannedSource planned{dsl::Ablation::resample};
  const auto& donors = bound.prompts[patch.from];
  std::set<runtime::SequenceId> known;
  for (const auto* prompts : measured_prompts(metric, subject, bound)) {
    for (std::size_t i = 0; i < prompts->size(); ++i) {
      const auto id = builder.sequence((*prompts)[i]);
      if (known.insert(id).second) planned.donors.emplace_back(id, builder.sequence(donors[i]));
    }
  }
  return planned;
}

Numbers numbers(const dsl::Expectation& expectation, const Combination& combination, Under under,
                const runtime::BoundRules& bound, runtime::PlanBuilder& builder, EvidenceSource& source) {
  Numbers numbers;
  const auto* effect = effect_of(expectation);
  if (effect) under.as_written = false;  // of a written model there is none with the change
  const dsl::Metric& metric = effect ? *effect->on : expectation.metric;
  const auto edits = edits_with(edits_meant(under), effect);
  const std::uint64_t seed = combination.seed;
  const auto in = [&](runtime::StateId state, const std::optional<dsl::CheckId>& attacks) {
    return measure(
        metric,
        {state, edits, combination.paraphrases, attacks, seed, combination.ablation.value_or(dsl::Ablation::resample)},
        bound, source);
  };
  const auto changed = [&](const Under& where) {
    const Subject subject{0, {}, combination.paraphrases, where.attacks, seed};
    runtime::Beside beside;
    beside.attacks = where.attacks;
    if (combination.ablation) beside.source = ablation_source(*combination.ablation, metric, subject, bound, builder);
    if (const auto* patch = std::get_if<dsl::Patch>(&effect->change)) {
      beside.direct = effect->direct;
      beside.source = patch_source(*patch, metric, subject, bound, builder);
    }
    return builder.state(where.edits, where.rules, &effect->change, seed, beside);
  };
  if (!effect) {
    if (!under.empty()) numbers.baseline = in(builder.loaded(), std::nullopt);
    numbers.state = state_under(under, nullptr, seed, builder);
    numbers.after = in(numbers.state, under.attacks);
    return numbers;
  }
  if (!under.empty()) {
    numbers.baseline_before = in(builder.loaded(), std::nullopt);
    numbers.baseline = in(changed({}), std::nullopt);
  }
  numbers.before = in(state_under(under, nullptr, seed, builder), under.attacks);
  numbers.state = changed(under);
  numbers.after = in(numbers.state, under.attacks);
  for (std::int64_t i = 0; i < effect->controls; ++i) {
    numbers.controls.push_back(in(builder.control(numbers.state, i, seed), under.attacks));
  }
  const auto control = [&](std::int64_t number, runtime::ControlKind kind) {
    return in(builder.control(numbers.state, number, seed, kind), under.attacks);
  };
  numbers.wrong_sign = control(0, runtime::ControlKind::wrong_sign);
  const bool by_edit = std::holds_alternative<dsl::ChangeEdit>(effect->change);
  for (std::int64_t i = 0; !by_edit && i < std::min(effect->controls, kPositionControls); ++i)
    numbers.positions.push_back(control(i, runtime::ControlKind::positions));
  return numbers;
}

/// "typos(rate: 5%)", the second of that text "typos(rate: 5%) (2)".
std::vector<std::string> attack_names(const dsl::CheckDecl& check) {
  std::vector<std::string> names;
  std::map<std::string, int> seen;
  for (const auto& attack : check.under_attacks) {
    const int nth = ++seen[attack.text];
    names.push_back(attack.text + (nth > 1 ? " (" + std::to_string(nth) + ")" : ""));
  }
  return names;
}

/// Why the number shows nothing, or "".
std::string vacuous(const ReadContext& c, const Numbers& n,
                    const std::vector<std::pair<std::string, std::int64_t>>& attacked) {
  if (n.after.empty_set && n.after.pairs_left_out)
    return "under attack no pair has two different prompts of equally many tokens";
  for (const Values* values : {&n.before, &n.after}) {
    if (values->empty_set) return "a set that it is measured on is empty";
    if (values->one_value) return "the feature reads one value on all prompts";
  }
  const auto* effect = effect_of(c.expectation);
  if (!effect && n.after.with_itself) return "the model as loaded is compared with itself";
  for (const auto& [attack, changed] : attacked) {
    if (changed == 0) return "attack " + attack + " changed no prompt";
  }
  const auto state = n.state;
  const auto& edit_changed = c.evidence.state(state).edit_changed;
  const auto& edits = c.plan.states[state].edits;
  for (std::size_t i = 0; i < edits.size(); ++i) {
    const bool meant = !c.under.of || edits[i] == *c.under.of;
    if (meant && !edit_changed[i]) return "edit " + c.bound.rules->edits[edits[i]].name + " changed no byte";
  }
  if (c.under.of) return "";  // what else is in force need not act on these prompts
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
  const auto& replacements = c.plan.states[state].replacements;
  for (std::size_t i = 0; i < replacements.size(); ++i) {
    auto& by = changed[replacements[i].of_change ? kChange : "rule " + replacements[i].rule];
    by = by || c.source.changed(state, sentences.size() + i);
  }
  for (const auto& [what, did] : changed) {
    if (!did) return what + " changed no vector";
  }
  return "";
}

std::string refused(const ReadContext& c, std::uint64_t seed) {
  auto edits = edits_with(c.under.edits, effect_of(c.expectation));
  if (edits.empty()) return "";
  for (const auto& edit : c.session.solve(edits, seed)) {
    if (!edit.refused.empty()) return "edit " + c.bound.rules->edits[edit.edit].name + ": " + edit.refused;
  }
  return "";
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double spread_of(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double squares = 0;
  for (double e : values) squares += (e - mean) * (e - mean);
  return values.size() > 1 ? std::sqrt(squares / static_cast<double>(values.size() - 1)) : 0;
}

Control control(const Numbers& n, double effect, bool relative, std::uint64_t seed) {
  const auto effect_of = [&](const Values& values) {
    return estimate_difference(n.before, values, relative, kReportedConfidence, seed).value;
  };
  std::vector<double> effects, positions;
  for (const auto& values : n.controls) effects.push_back(effect_of(values));
  for (const auto& values : n.positions) positions.push_back(effect_of(values));
  Control control;
  control.n = static_cast<std::int64_t>(effects.size());
  control.value = mean_of(effects);
  control.spread = spread_of(effects);
  if (n.wrong_sign) control.wrong_sign = effect_of(*n.wrong_sign);
  if (!positions.empty()) control.positions = {std::ssize(positions), mean_of(positions), spread_of(positions)};
  control.rank =
      1 + std::count_if(effects.begin(), effects.end(), [&](double e) { return std::abs(e) >= std::abs(effect); });
  control.p = t_test_against(effect, effects);
  control.values = std::move(effects);
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
  const bool recovered = measured.kind == Values::Kind::recovered;
  const auto shown_at = [&](std::size_t i) {
    return recovered ? shown(values[i]) / measured.others[i].sample.value : shown(values[i]);
  };
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const bool paired = before && before->size() == values.size() && !recovered;
  const bool effect = effect_of(expectation) != nullptr;
  const auto badness = [&](std::size_t i) {
    double value = shown_at(i);
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
    evidence.after = shown_at(i);
    evidence.output = values[i].output;
    worst.push_back(std::move(evidence));
  }
  return worst;
}

/// Every prompt's number, where the metric's is a mean or a ratio of them; `before` as in `worst_prompts`.
std::optional<PromptNumbers> sample_of(const dsl::Expectation& expectation, const Values& measured,
                                       const std::vector<PromptValue>* before) {
  using Kind = Values::Kind;
  const auto& values = measured.values;
  const bool paired = before && before->size() == values.size();
  const bool effect = effect_of(expectation) != nullptr, rise = measured.kind == Kind::perplexity_rise;
  const bool share = measured.kind == Kind::share, mean = measured.kind == Kind::mean;
  const bool known =
      effect ? (share || mean) && paired && !expectation.relative
             : share || mean || measured.kind == Kind::perplexity || (rise && measured.others.size() == values.size());
  if (!known || values.empty()) return std::nullopt;
  PromptNumbers numbers;
  numbers.kind = effect || mean ? "mean" : share ? "share" : "nll";
  std::string prompts;
  std::map<std::int64_t, std::int64_t> clusters;  // numbered anew, so that no other set's count tells in them
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Sample& sample = values[i].sample;
    const double from = effect ? (*before)[i].sample.value : rise ? measured.others[i].sample.value : 0;
    numbers.values.push_back(sample.value - from);
    if (paired && !effect && !rise) numbers.before.push_back((*before)[i].sample.value);
    numbers.weights.push_back(sample.weight);
    numbers.clusters.push_back(clusters.try_emplace(sample.cluster, std::ssize(clusters)).first->second);
    prompts += (values[i].prompt ? values[i].prompt->text : "") + '\0';
  }
  if (std::all_of(numbers.weights.begin(), numbers.weights.end(), [](double weight) { return weight == 1; }))
    numbers.weights.clear();
  if (clusters.size() == values.size()) numbers.clusters.clear();
  numbers.prompts = model::sha256_hex(std::as_bytes(std::span(prompts)));
  return numbers;
}

Measured::Part read(const ReadContext& c, const Combination& combination) {
  Measured::Part part;
  part.combination = combination.name;
  auto& result = part.result;
  result.text = c.expectation.text;
  result.asked_confidence = c.expectation.confidence;
  const auto settle = [&](Status status, std::string reason) {
    part.settled = true;
    result.status = status;
    result.reason = std::move(reason);
  };
  result.estimate.value = std::nan("");
  if (std::string why = refused(c, combination.seed); !why.empty()) {
    settle(Status::error, std::move(why));
    return part;
  }

  c.source.forget();
  const Numbers n = numbers(c.expectation, combination, c.under, c.bound, c.builder, c.source);
  if (!n.after.broken.empty()) {
    settle(Status::error, n.after.broken);
    return part;
  }
  if (!c.source.finite()) {
    settle(Status::error, "the model's numbers are NaN or infinite here");
    return part;
  }
  const double confidence = c.expectation.confidence.value_or(kReportedConfidence);
  const bool relative = c.expectation.relative;
  const auto* effect = effect_of(c.expectation);
  const std::uint64_t seed = c.seed + combination.seed;
  result.estimate =
      effect ? estimate_difference(n.before, n.after, relative, confidence, seed) : estimate(n.after, confidence, seed);
  if (n.baseline) {
    result.baseline = n.baseline_before
                          ? estimate_difference(*n.baseline_before, *n.baseline, relative, confidence, seed).value
                          : estimate(*n.baseline, confidence, seed).value;
  }
  if (c.under.attacks) {
    const auto names = attack_names(c.bound.rules->checks[*c.under.attacks]);
    for (std::size_t i = 0; i < names.size(); ++i) result.attacked.emplace_back(names[i], n.after.attacked[i]);
    result.searched = searched(c.bound.rules->checks[*c.under.attacks], n.after, c.bound);
    result.pairs_left_out = n.after.pairs_left_out;
  }
  if (effect && !n.controls.empty()) result.control = control(n, result.estimate.value, relative, seed);
  const auto* before = effect ? &n.before.values : n.baseline ? &n.baseline->values : nullptr;
  result.evidence = worst_prompts(c.expectation, n.after, before);
  result.sample = sample_of(c.expectation, n.after, before);
  if (std::string why = vacuous(c, n, result.attacked); !why.empty()) settle(Status::vacuous, std::move(why));
  // Last: what is read here, also without the attacks, says nothing of whether the rules changed a vector under them.
  RulesUnderAttack rules = silenced(c.expectation, n, combination, c.under, c.bound, c.builder, c.source);
  result.moved = std::move(rules.moved);
  result.evaded = rules.evaded;
  return part;
}

/// Whether a speaks more against the claim than b.
bool worse(const dsl::Expectation& expectation, const ExpectationResult& a, const ExpectationResult& b) {
  if (a.status != b.status) return worst(a.status, b.status) == a.status;
  switch (expectation.op) {
    case dsl::Compare::less:
    case dsl::Compare::less_equal:
      return a.estimate.value > b.estimate.value;
    case dsl::Compare::greater:
    case dsl::Compare::greater_equal:
      return a.estimate.value < b.estimate.value;
    case dsl::Compare::equal:
    case dsl::Compare::not_equal:
      return false;
  }
  return false;
}

}  // namespace

void ask(const dsl::Expectation& expectation, const Under& under, const runtime::BoundRules& bound,
         runtime::PlanBuilder& builder, EvidenceSource& source) {
  for (const auto& combination : combinations(expectation.across, bound)) {
    const Numbers asked = numbers(expectation, combination, under, bound, builder, source);
    silenced(expectation, asked, combination, under, bound, builder, source);
  }
}

Measured read(const ReadContext& c) {
  Measured measured;
  measured.expectation = &c.expectation;
  for (const auto& combination : combinations(c.expectation.across, c.bound)) {
    measured.parts.push_back(read(c, combination));
  }
  return measured;
}

void correct(std::vector<Measured>& measured) {
  std::vector<Control*> controls;
  std::vector<double> p;
  for (auto& one : measured) {
    for (auto& part : one.parts) {
      if (!part.result.control) continue;
      controls.push_back(&*part.result.control);
      p.push_back(part.result.control->p);
    }
  }
  const auto corrected = holm(p);
  for (std::size_t i = 0; i < controls.size(); ++i) controls[i]->p_holm = corrected[i];
}

ExpectationResult judge(const Measured& measured) {
  const dsl::Expectation& expectation = *measured.expectation;
  std::vector<ExpectationResult> results;
  std::vector<Status> statuses;
  AcrossResult across;
  for (const auto& part : measured.parts) {
    ExpectationResult result = part.result;
    if (!part.settled) {
      auto [status, reason] = decide(claim_of(expectation), result.estimate, result.control);
      result.status = status;
      result.reason = std::move(reason);
    }
    across.values.emplace_back(part.combination, result.estimate.value);
    across.statuses.emplace_back(part.combination, result.status);
    statuses.push_back(result.status);
    results.push_back(std::move(result));
  }
  ExpectationResult result = *std::max_element(results.begin(), results.end(),
                                               [&](const auto& a, const auto& b) { return worse(expectation, b, a); });
  if (expectation.across.empty()) return result;

  across.combinations = static_cast<std::int64_t>(statuses.size());
  across.held = share_passing(statuses);
  const Status together = across_status(statuses);
  if (together != result.status) {
    const auto held = std::count(statuses.begin(), statuses.end(), Status::pass);
    result.reason = "held under " + std::to_string(held) + " of " + std::to_string(statuses.size()) + " combinations" +
                    (result.reason.empty() ? "" : "; at worst: " + result.reason);
  }
  result.status = together;
  result.across = std::move(across);
  return result;
}

}  // namespace proviso::audit

#include "audit/audit.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "audit/circuits.hpp"
#include "audit/data_files.hpp"
#include "audit/example_conditions.hpp"
#include "audit/expectations.hpp"
#include "audit/metrics.hpp"
#include "audit/verdict.hpp"
#include "runtime/condition.hpp"
#include "runtime/features/choose_sites.hpp"
#include "runtime/formats/sha256.hpp"

namespace proviso::audit {

namespace {

/// One audit: asks for everything in `plan`, reads everything in `read`, in the same order.
class Auditor {
 public:
  Auditor(const runtime::BoundRules& bound, const AuditOptions& options)
      : bound_(bound), rules_(*bound.rules), options_(options), builder_(bound) {}

  /// With the state that `apply` writes, so that every sentence of the files is told.
  runtime::Plan plan_to_show() {
    builder_.state(rules_.own_edits(), rules_.own_rules());
    return plan();
  }

  runtime::Plan plan() {
    PlanningSource source(builder_);
    each_expectation([&](const dsl::Expectation& expectation, const Under& under) {
      ask(expectation, under, bound_, builder_, source);
    });
    for (dsl::EditId id = 0; id < rules_.edits.size(); ++id) {
      if (takes_edit(id)) builder_.state({id}, {});
    }
    each_example([&](dsl::RuleId rule, const std::vector<dsl::PromptsId>& sets, const char*, dsl::Span) {
      const auto state = builder_.state({}, {rule});
      for (dsl::PromptsId set : sets) {
        for (const auto& prompt : bound_.prompts[set]) {
          source.firing(state, prompt);
          for (const dsl::FeatureId feature : features_read(rules_.rules[rule]))
            source.readings(state, prompt, feature);
        }
      }
    });
    ask_for_circuits();
    return runtime::optimise(builder_.plan(), bound_, options_.passes_off);
  }

  /// Checks under attacks that search on the model.
  std::set<dsl::CheckId> searching() const {
    std::set<dsl::CheckId> checks;
    each_expectation([&](const dsl::Expectation&, const Under& under) {
      if (!under.attacks) return;
      const auto& attacks = rules_.checks[*under.attacks].under_attacks;
      if (std::any_of(attacks.begin(), attacks.end(), [](const dsl::Attack& each) { return each.searches(); })) {
        checks.insert(*under.attacks);
      }
    });
    return checks;
  }

  dsl::Outcome<Report> run(runtime::Session& session, const dsl::SourceSet& sources) {
    dsl::Outcome<Report> outcome;
    sources_ = &sources;
    const runtime::Plan plan = this->plan();
    outcome.diagnostics = session.build(plan.features);
    if (dsl::has_errors(outcome.diagnostics)) return outcome;
    const runtime::Evidence evidence = session.carry_out(plan);
    ReadingSource source(plan, evidence, session.features());

    Report report;
    expectations(report, plan, evidence, session, source);
    features(report, plan, session);
    activity(report, plan, evidence);
    report.circuits = circuits(plan, evidence, session.seed());
    examples(report, plan, session, source);
    annotated(report);
    facts(report, plan, evidence, session, sources);
    outcome.value = std::move(report);
    return outcome;
  }

  std::vector<CircuitResult> trace(runtime::Session& session, const dsl::SourceSet& sources) {
    sources_ = &sources;
    ask_for_circuits();
    const runtime::Plan& plan = builder_.plan();
    return circuits(plan, session.carry_out(plan), session.seed());
  }

 private:
  bool takes_edit(dsl::EditId id) const {
    return options_.selection.edits && !rules_.edits[id].imported && options_.selection.takes(rules_.edits[id]);
  }

  bool takes_check(const dsl::CheckDecl& check) const {
    return options_.selection.checks && !check.imported && options_.selection.takes(check) &&
           !options_.left_out.contains(check.name);
  }

  Under under_of(dsl::EditId id) const {
    const auto& together = options_.together;
    if (!together) return {{id}, {}, std::nullopt};
    return {together->edits, together->rules, std::nullopt, id, together->as_written};
  }

  bool takes_circuit(dsl::CircuitId id) const {
    return options_.selection.checks && !rules_.circuits[id].imported && options_.selection.takes(rules_.circuits[id]);
  }

  void ask_for_circuits() {
    for (dsl::CircuitId id = 0; id < rules_.circuits.size(); ++id) {
      runtime::CircuitKey as_found;
      as_found.circuit = id;
      if (takes_circuit(id)) {
        builder_.want_circuit(as_found);
        builder_.want_circuit(id, {options_.minimality, options_.stability});
      }
    }
  }

  std::vector<CircuitResult> circuits(const runtime::Plan& plan, const runtime::Evidence& evidence,
                                      std::uint64_t seed) const {
    std::vector<CircuitResult> results;
    for (const auto& [id, asked] : plan.circuits) {
      results.push_back(circuit_result(bound_, id, evidence.circuit(id), where(rules_.circuits[id].span), seed));
      for (const auto& [other, unused] : plan.circuits) {
        // Latents of different autoencoders are no parts of each other's circuits, nor of those of heads and MLPs.
        if (other == id || bound_.circuits[other].autoencoders != bound_.circuits[id].autoencoders) continue;
        const auto shared = runtime::overlap(evidence.circuit(id), evidence.circuit(other));
        results.back().overlaps.push_back({rules_.circuits[other].name, shared.nodes ? "nodes" : "edges", shared.both,
                                           shared.either, shared.share(), shared.by_chance});
      }
    }
    return results;
  }

  template <class Each>
  void each_expectation(Each each) const {
    for (dsl::CheckId id = 0; id < rules_.checks.size(); ++id) {
      const auto& check = rules_.checks[id];
      if (!takes_check(check)) continue;
      const auto attacks = check.under_attacks.empty() ? std::nullopt : std::optional(id);
      for (const auto& expectation : check.expectations) {
        each(expectation, Under{check.under_edits, check.under_rules, attacks});
      }
    }
    for (dsl::EditId id = 0; id < rules_.edits.size(); ++id) {
      if (!takes_edit(id)) continue;
      for (const auto& expectation : rules_.edits[id].expectations) each(expectation, under_of(id));
    }
  }

  template <class Each>
  void each_example(Each each) const {
    for (dsl::RuleId id = 0; id < rules_.rules.size(); ++id) {
      const auto& rule = rules_.rules[id];
      if (!options_.selection.examples || rule.imported || !options_.selection.takes(rule)) continue;
      if (!rule.fires_on.empty()) each(id, rule.fires_on, "fires on", rule.fires_span);
      if (!rule.silent_on.empty()) each(id, rule.silent_on, "silent on", rule.silent_span);
    }
  }

  std::string where(dsl::Span span) const {
    return sources_->at(span.source).path + ":" + std::to_string(sources_->position(span.source, span.begin).line);
  }

  void expectations(Report& report, const runtime::Plan& plan, const runtime::Evidence& evidence,
                    runtime::Session& session, ReadingSource& source) {
    // All effects of the audit are corrected together, so every number is read before the first is judged.
    std::vector<Measured> measured;
    each_expectation([&](const dsl::Expectation& expectation, const Under& under) {
      measured.push_back(read({expectation, under, bound_, builder_, plan, evidence, session, source, session.seed()}));
    });
    correct(measured);
    auto next = measured.begin();
    for (std::size_t id = 0; id < rules_.checks.size(); ++id) {
      const auto& check = rules_.checks[id];
      if (!takes_check(check)) continue;
      CheckResult result;
      result.name = check.name;
      result.annotations = check.annotations;
      result.severity = check.severity;
      result.where = where(check.span);
      for (dsl::EditId edit : check.under_edits) result.under.push_back("edit " + rules_.edits[edit].name);
      for (dsl::RuleId rule : check.under_rules) result.under.push_back("rule " + rules_.rules[rule].name);
      for (const auto& attack : check.under_attacks) result.under.push_back("attack " + attack.text);
      for (std::size_t i = 0; i < check.expectations.size(); ++i) result.expectations.push_back(judge(*next++));
      const auto waiver = std::find_if(rules_.waivers.begin(), rules_.waivers.end(),
                                       [&](const dsl::Waiver& w) { return w.check == id; });
      conclude(result, waiver == rules_.waivers.end() ? nullptr : &*waiver, options_.as_of);
      report.checks.push_back(std::move(result));
    }
    for (dsl::EditId id = 0; id < rules_.edits.size(); ++id) {
      if (!takes_edit(id)) continue;
      EditResult result = edit(id, evidence, session);
      for (std::size_t i = 0; i < rules_.edits[id].expectations.size(); ++i)
        result.expectations.push_back(judge(*next++));
      if (result.status == Status::pass && !result.expectations.empty()) result.status = worst_of(result.expectations);
      report.edits.push_back(std::move(result));
    }
  }

  EditResult edit(dsl::EditId id, const runtime::Evidence& evidence, runtime::Session& session) {
    const auto& declared = rules_.edits[id];
    EditResult result;
    result.name = declared.name;
    result.annotations = declared.annotations;
    result.where = where(declared.span);
    const auto& solved = session.solve({id}).front();
    result.status = Status::pass;
    if (!solved.refused.empty()) {
      result.status = Status::error;
      result.parameters = {{"refused", solved.refused}};
      return result;
    }
    const auto state = builder_.state({id}, {});
    if (!evidence.state(state).edit_changed.front()) result.status = Status::vacuous;
    for (const auto& certificate : solved.certificates) {
      if (result.method.empty()) {
        result.method = certificate.method;
        result.parameters = certificate.parameters;
      }
      for (const auto& change : certificate.changes) {
        result.changes.push_back({change.tensor, change.sha256_before, change.sha256_after, change.shape, change.rank,
                                  change.norm, change.relative_norm});
      }
      result.parts.push_back({certificate.algebra, certificate.predicted, certificate.measured});
    }
    result.costs = solved.costs;
    return result;
  }

  void features(Report& report, const runtime::Plan& plan, const runtime::Session& session) const {
    for (dsl::FeatureId id : plan.features) {
      const auto& declared = rules_.features[id];
      const auto& direction = session.features()[id];
      FeatureResult result;
      result.name = declared.name;
      result.site = dsl::to_string(direction.site);
      result.constructor = dsl::constructor_name(declared);
      result.b = direction.b;
      result.c = direction.c;
      result.built_on = direction.built_on;
      result.measures = direction.measures;
      for (const dsl::FeatureId member : dsl::members_of(declared))
        result.spanned_by.push_back(bound_.feature_name(member));
      if (const auto found = bound_.selections.find(id); found != bound_.selections.end()) {
        SelectResult select{runtime::selection_method(found->second), {}};
        for (const auto& score : found->second.scores) {
          SiteScore scored{dsl::to_string(score.site), std::nullopt, std::nullopt, score.left_out};
          if (score.left_out.empty()) {
            scored.auroc = score.auroc;
            scored.separation = score.separation;
          }
          select.candidates.push_back(std::move(scored));
        }
        result.select = std::move(select);
      }
      report.features.push_back(std::move(result));
    }
  }

  void annotated(Report& report) const {
    const auto add = [&](const char* kind, const auto& declarations) {
      for (const auto& declared : declarations) {
        const dsl::Annotations& says = declared.annotations;
        const bool anything = !(says.title.empty() && says.description.empty() && says.tags.empty() &&
                                says.meta.empty() && says.status == dsl::Annotations::Status::stable);
        if (anything) report.annotated.push_back({kind + declared.name, where(declared.span), says});
      }
    };
    add("prompts ", rules_.prompts);
    add("feature ", rules_.features);
    add("rule ", rules_.rules);
    add("", rules_.remarks);
  }

  /// Sentences over all states that they were in force in, controls apart.
  void activity(Report& report, const runtime::Plan& plan, const runtime::Evidence& evidence) const {
    struct Key {
      std::string rule, text;
      dsl::FeatureId feature;  // of a subspace each
      dsl::Site site;
      bool folded;
      auto operator<=>(const Key&) const = default;
    };
    std::map<Key, std::pair<runtime::Activity, const dsl::Intervention*>> sums;
    std::vector<Key> order;
    for (runtime::StateId id = 0; id < plan.states.size(); ++id) {
      const auto& state = plan.states[id];
      if (state.controls) continue;
      for (std::size_t i = 0; i < state.sentences.size(); ++i) {
        const auto& sentence = state.sentences[i];
        for (const auto& [site, activity] : evidence.state(id).activity[i]) {
          const bool folded = std::find(sentence.folds.begin(), sentence.folds.end(), site) != sentence.folds.end();
          const Key key{sentence.rule, sentence.sentence.text, sentence.sentence.feature, site, folded};
          if (!sums.contains(key)) order.push_back(key);
          auto& sum = sums[key];
          sum.first += activity;
          sum.second = &sentence.sentence;
        }
      }
    }
    circuit_activity(report, plan, evidence);
    for (const auto& key : order) {
      const auto& [activity, sentence] = sums.at(key);
      RuleActivity result;
      result.rule = key.rule.empty() ? key.text : key.rule;
      result.sentence = key.text;
      result.feature = bound_.feature_name(key.feature);
      result.site = dsl::to_string(key.site);
      result.form = key.folded ? "weight edit" : "hook";
      tell(activity, result);
      for (std::size_t i = 0; i < activity.branches.size(); ++i) {
        const dsl::Span span = std::get<dsl::Or>(sentence->condition->node).of[i]->span;
        const std::string& text = sources_->at(span.source).text;
        result.branches.emplace_back(text.substr(span.begin, span.end - span.begin), activity.branches[i]);
      }
      report.rule_activity.push_back(std::move(result));
    }
  }

  /// How often something acted, and by how much on average.
  static void tell(const runtime::Activity& activity, RuleActivity& result) {
    const auto mean = [](double sum, std::int64_t n) { return n > 0 ? sum / static_cast<double>(n) : 0; };
    result.positions = activity.positions;
    result.active = activity.active;
    result.mean = mean(activity.sum, activity.positions);
    result.max = activity.max;
    result.relative_change = mean(activity.relative_change, activity.active);
    result.relative_change_at_0 = mean(activity.relative_change_at_0, activity.firsts);
  }

  /// Of suppressed circuits and patches: how far what was there lay from what was put in its place.
  static void circuit_activity(Report& report, const runtime::Plan& plan, const runtime::Evidence& evidence) {
    std::map<std::tuple<std::string, std::string, dsl::Site>, runtime::Activity> sums;
    for (runtime::StateId id = 0; id < plan.states.size(); ++id) {
      const auto& state = plan.states[id];
      if (state.controls) continue;
      for (std::size_t i = 0; i < state.replacements.size(); ++i) {
        for (const auto& [site, activity] : evidence.state(id).activity[state.sentences.size() + i])
          sums[{state.replacements[i].rule, state.replacements[i].text(), site}] += activity;
      }
    }
    for (const auto& [key, activity] : sums) {
      const auto& [rule, text, site] = key;
      RuleActivity result;
      result.rule = rule.empty() ? text : rule;
      result.sentence = text;
      result.feature = text.substr(text.find(' ') + 1);
      result.site = dsl::to_string(site);
      result.form = "hook";
      tell(activity, result);
      report.rule_activity.push_back(std::move(result));
    }
  }

  void examples(Report& report, const runtime::Plan& plan, runtime::Session& session, ReadingSource& source) {
    each_example([&](dsl::RuleId rule, const std::vector<dsl::PromptsId>& sets, const char* kind, dsl::Span span) {
      ExampleResult result;
      result.rule = rules_.rules[rule].name;
      result.annotations = rules_.rules[rule].annotations;
      result.kind = kind;
      result.where = where(span);
      const bool must_fire = result.kind == "fires on";
      const auto state = builder_.state({}, {rule});
      const auto& sentences = plan.states[state].sentences;
      bool right = true;
      std::vector<const runtime::BoundPrompt*> prompts;
      for (dsl::PromptsId set : sets) {
        for (const auto& prompt : bound_.prompts[set]) {
          const auto fired = source.firing(state, prompt);
          std::int64_t positions = 0;
          for (std::size_t i = 0; i < sentences.size(); ++i) {
            if (sentences[i].sentence.condition) positions = std::max(positions, fired[i]);
          }
          prompts.push_back(&prompt);
          ++result.prompts;
          result.fired += positions > 0;
          if ((positions > 0) == must_fire) continue;
          right = false;
          if (result.evidence.size() < kEvidenceShown) {
            result.evidence.push_back({prompt.text, std::nullopt, static_cast<double>(positions), ""});
          }
        }
      }
      result.conditions = condition_results(
          rules_.rules[rule], rules_, must_fire, prompts,
          [&](const auto& prompt, dsl::FeatureId feature) { return source.readings(state, prompt, feature); },
          [&](const dsl::Quantile& quantile) { return session.quantile(quantile); });
      if (!options_.every_margin) {
        for (ConditionResult& condition : result.conditions) condition.prompts.clear();
      }
      result.status = result.prompts == 0 ? Status::vacuous : right ? Status::pass : Status::fail;
      report.examples.push_back(std::move(result));
    });
  }

  void facts(Report& report, const runtime::Plan& plan, const runtime::Evidence& evidence,
             const runtime::Session& session, const dsl::SourceSet& sources) const {
    report.model.name = bound_.card->name;
    report.model.family = std::string(model::family_name(bound_.card->config.family));
    report.model.parameters = bound_.card->parameters;
    for (dsl::SourceId id : rules_.files) {
      const auto& source = sources.at(id);
      report.rules.emplace_back(source.path, model::sha256_hex(std::as_bytes(std::span(source.text))));
    }
    for (const std::string& file : data_files(rules_))
      report.data.emplace_back(file, model::sha256_of_files({file}, ""));
    report.run.seed = session.seed();
    report.run.date = date_text(options_.as_of);
    report.run.sequences = evidence.sequences + session.built_sequences();
    report.run.tokens = evidence.tokens + session.built_tokens();
    report.run.tokens_saved = plan.counts().tokens_saved;
  }

  const runtime::BoundRules& bound_;
  const dsl::RuleSet& rules_;
  const AuditOptions& options_;
  runtime::PlanBuilder builder_;
  const dsl::SourceSet* sources_ = nullptr;
};

}  // namespace

bool Selection::takes(const dsl::Declared& declared) const {
  constexpr std::string_view kTag = "tag:";
  if (only.empty()) return true;
  if (!only.starts_with(kTag)) return declared.name == only;
  const auto& tags = declared.annotations.tags;
  return std::find(tags.begin(), tags.end(), only.substr(kTag.size())) != tags.end();
}

runtime::Plan plan_audit(const runtime::BoundRules& bound, const AuditOptions& options) {
  return Auditor(bound, options).plan_to_show();
}

dsl::Outcome<Report> audit(runtime::Session& session, const runtime::BoundRules& bound, const dsl::SourceSet& sources,
                           const AuditOptions& options) {
  Auditor before(bound, options);
  const auto checks = before.searching();
  if (checks.empty()) return before.run(session, sources);
  // The prompts that are measured are known once they have been searched for; only then is the plan made.
  dsl::Outcome<Report> outcome;
  outcome.diagnostics = session.build(before.plan().features);
  if (dsl::has_errors(outcome.diagnostics)) return outcome;
  const runtime::BoundRules searched = session.searched(bound, checks, options.passes_off);
  auto measured = Auditor(searched, options).run(session, sources);
  outcome.value = std::move(measured.value);
  outcome.diagnostics.insert(outcome.diagnostics.end(), measured.diagnostics.begin(), measured.diagnostics.end());
  return outcome;
}

std::vector<CircuitResult> trace(runtime::Session& session, const runtime::BoundRules& bound,
                                 const dsl::SourceSet& sources, const AuditOptions& options) {
  return Auditor(bound, options).trace(session, sources);
}

}  // namespace proviso::audit

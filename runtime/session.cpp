#include "runtime/session.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "runtime/attack_search.hpp"
#include "runtime/features/build.hpp"
#include "runtime/features/choose_sites.hpp"
#include "runtime/state_run.hpp"

namespace proviso::runtime {

Session::Session(model::Transformer& transformer, const BoundRules& bound, SessionOptions options)
    : transformer_(transformer),
      bound_(bound),
      options_(std::move(options)),
      autoencoders_(bound.autoencoders, transformer.options().device),
      features_(bound.rules->features.size()),
      moments_(options_.corpus_path, options_.cache_directory),
      loaded_unembedding_(transformer.get(transformer.unembedding_name())),
      built_sequences_(bound.selection_sequences),
      built_tokens_(bound.selection_tokens) {}

Session::~Session() = default;

std::vector<dsl::Diagnostic> Session::build(const std::set<dsl::FeatureId>& features) {
  const at::NoGradGuard no_grad;
  std::set<dsl::FeatureId> missing;
  for (const dsl::FeatureId id : features) {
    if (!features_[id].built()) missing.insert(id);
  }
  if (sites_open(bound_, missing)) throw std::logic_error("features are built before their sites are chosen");
  BuildCounts counts;
  auto outcome =
      build_features(transformer_, bound_, missing, autoencoders_, options_.cache_directory, counts, options_.progress);
  if (options_.progress) options_.progress({}, counts.sequences, counts.sequences);
  built_sequences_ += counts.sequences;
  built_tokens_ += counts.tokens;
  if (outcome.value) {
    for (const dsl::FeatureId id : missing) features_[id] = std::move((*outcome.value)[id]);
  }
  return std::move(outcome.diagnostics);
}

Plan quantile_plan(const dsl::Quantile& quantile, const BoundRules& bound) {
  PlanBuilder builder(bound);
  for (const auto& prompt : bound.prompts[quantile.prompts])
    builder.want_feature(builder.loaded(), builder.sequence(prompt), quantile.feature);
  return optimise(builder.take(), bound, {});
}

double Session::quantile(const dsl::Quantile& quantile) {
  const auto key = std::tuple{quantile.feature, quantile.prompts, quantile.p};
  if (const auto found = quantiles_.find(key); found != quantiles_.end()) return found->second;

  const Plan plan = quantile_plan(quantile, bound_);
  std::map<Sequence, SequenceId> ids;
  for (SequenceId id = 0; id < plan.sequences.size(); ++id) ids.emplace(plan.sequences[id], id);
  const Evidence evidence = carry_out(plan);
  std::vector<double> values;
  for (const auto& prompt : bound_.prompts[quantile.prompts]) {
    const auto& seen = evidence.at(0, ids.at({prompt.tokens, std::ssize(prompt.tokens), prompt.text}));
    const auto& activations = seen.features.at(quantile.feature);
    const auto& ordinary = seen.ordinary.at(quantile.feature);
    for (std::size_t i = 0; i < activations.size(); ++i) {
      if (ordinary[i]) values.push_back(activations[i]);
    }
  }
  built_sequences_ += evidence.sequences;
  built_tokens_ += evidence.tokens;
  // The linearly interpolated quantile (type 7, as NumPy's): a share 1 − p of the positions exceeds it.
  double value = std::nan("");
  if (!values.empty()) {
    std::sort(values.begin(), values.end());
    const double at = quantile.p * static_cast<double>(values.size() - 1);
    const auto low = static_cast<std::size_t>(at);
    const auto high = std::min(low + 1, values.size() - 1);
    value = values[low] + (at - static_cast<double>(low)) * (values[high] - values[low]);
  }
  return quantiles_[key] = value;
}

const std::vector<SolvedEdit>& Session::solve(const std::vector<dsl::EditId>& edits, std::uint64_t seed) {
  const auto found = solved_.find({edits, seed});
  if (found != solved_.end()) return found->second;
  std::vector<SolvedEdit> solved;
  if (!edits.empty()) {
    solved = solve({edits.begin(), edits.end() - 1}, seed);
    const at::NoGradGuard no_grad;
    editing::AppliedDeltas applied(transformer_);
    for (const auto& earlier : solved) {
      for (const auto& delta : earlier.deltas) applied.apply(delta);
    }
    if (!costs_ && !options_.held_out_path.empty()) {
      costs_ = CostText{editing::read_corpus(options_.held_out_path), {}};
      if (!options_.unrelated_path.empty()) costs_->unrelated = editing::read_unrelated_facts(options_.unrelated_path);
    }
    solved.push_back(solve_edit(edits.back(), transformer_, bound_, features_, circuits_, solved, moments_,
                                options_.inherited_keys, costs_ ? &*costs_ : nullptr, options_.seed + seed));
  }
  return solved_[{edits, seed}] = std::move(solved);
}

const CircuitEvidence& Session::circuit(dsl::CircuitId id, const CircuitAsked& asked) {
  const auto known = circuits_asked_.find(id);
  const bool enough = known != circuits_asked_.end() && known->second.minimality >= asked.minimality &&
                      known->second.stability >= asked.stability;
  if (enough) return circuits_.at(id);
  const at::NoGradGuard no_grad;
  CircuitAsked all = known == circuits_asked_.end() ? CircuitAsked{} : known->second;
  all.minimality = all.minimality || asked.minimality;
  all.stability = all.stability || asked.stability;
  if (options_.progress) options_.progress("finding circuit " + bound_.rules->circuits[id].name, 0, 1);
  circuits_[id] = find_circuit(transformer_, bound_.rules->circuits[id], bound_.circuits[id], all, options_.seed,
                               autoencoders_.get(bound_.circuits[id].autoencoders));
  circuits_asked_[id] = all;
  return circuits_.at(id);
}

void Session::prepare(const Plan& plan) {
  for (const auto& [id, asked] : plan.circuits) circuit(id, asked);
  for (const auto& state : plan.states) {
    for (dsl::EditId edit : state.edits) moments_.prepare(edit, transformer_, bound_, options_.seed);
  }
  for (const auto& state : plan.states) {
    if (!state.edits.empty()) solve(state.edits, state.seed);
  }
}

StateRun::Context Session::context(const Plan& plan, StateId id) {
  const auto& state = plan.states[id];
  return {transformer_,  bound_,
          plan,          id,
          features_,     loaded_unembedding_,
          options_.seed, [this](const dsl::Quantile& q) { return quantile(q); },
          autoencoders_, state.edits.empty() ? nullptr : &solve(state.edits, state.seed),
          &written_,     &circuits_};
}

BoundRules Session::searched(BoundRules bound, const std::set<dsl::CheckId>& checks,
                             const std::set<std::string>& passes_off) {
  const at::NoGradGuard no_grad;
  std::set<std::pair<dsl::CheckId, std::uint64_t>> searches;
  for (const auto& [key, prompts] : bound.attacked) {
    if (checks.contains(key.check)) searches.emplace(key.check, key.seed);
  }
  std::int64_t done = 0;
  for (const auto& [id, seed] : searches) {
    const auto& check = bound.rules->checks[id];
    if (options_.progress) options_.progress("searching attacks of check " + check.name, done++, std::ssize(searches));
    PlanBuilder builder(bound);
    const StateId state = builder.state(check.under_edits, check.under_rules, nullptr, seed);
    const Plan plan = optimise(builder.take(), bound, passes_off);
    prepare(plan);
    Evidence unused;
    StateRun(context(plan, state), unused).open([&](HookPass& hooks, const ConditionSet& conditions) {
      AttackSearch search(transformer_, hooks, conditions, bound, {id, seed});
      search.run();
      built_sequences_ += search.sequences();
      built_tokens_ += search.tokens();
    });
  }
  return bound;
}

Evidence Session::carry_out(const Plan& plan) {
  const at::NoGradGuard no_grad;
  prepare(plan);
  Evidence evidence;
  const auto total = static_cast<std::int64_t>(plan.states.size());
  for (const auto& [id, asked] : plan.circuits) {
    const auto& found = evidence.circuits_[id] = circuits_.at(id);
    evidence.sequences += 2 * (std::ssize(bound_.circuits[id].pairs) + std::ssize(bound_.circuits[id].held));
    evidence.tokens += found.tokens;
  }
  for (StateId id = 0; id < plan.states.size(); ++id) {
    if (options_.progress)
      options_.progress("measuring " + plan.states[id].label, static_cast<std::int64_t>(id), total);
    StateRun(context(plan, id), evidence).carry_out();
  }
  if (options_.progress) options_.progress({}, total, total);
  return evidence;
}

}  // namespace proviso::runtime

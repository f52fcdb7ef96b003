#include "runtime/plan.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "runtime/condition.hpp"
#include "runtime/passes/passes.hpp"

namespace proviso::runtime {

PlanCounts Plan::counts() const {
  PlanCounts counts;
  for (const auto& run : runs) {
    for (const auto& batch : run.batches) {
      ++counts.passes;
      counts.sequences += static_cast<std::int64_t>(batch.sequences.size());
      counts.tokens += batch.shared_prefix;
      for (SequenceId id : batch.sequences) {
        counts.tokens += static_cast<std::int64_t>(sequences[id].tokens.size()) - batch.shared_prefix;
      }
    }
  }
  for (const auto& key : generations) {
    counts.sequences += key.samples;
    counts.tokens += static_cast<std::int64_t>(sequences[key.sequence].tokens.size()) * key.samples;
  }
  counts.sequences += spliced_sequences;
  counts.tokens += spliced_tokens;
  counts.sequences += ablated_sequences;
  counts.tokens += ablated_tokens;
  counts.tokens_saved = tokens_asked - counts.tokens;
  return counts;
}

const std::string& PlannedReplacement::text() const {
  return std::visit([](const auto& each) -> const std::string& { return each.text; }, what);
}

dsl::Span PlannedReplacement::span() const {
  return std::visit([](const auto& each) { return each.span; }, what);
}

std::vector<SequenceId> PlannedSource::read() const {
  std::vector<SequenceId> read;
  for (const auto& set : sets) read.insert(read.end(), set.begin(), set.end());
  for (const auto& [prompt, donor] : donors) read.push_back(donor);
  return read;
}

namespace {

/// Counts the prompts that a state reads beforehand, to know what its change puts in.
void count_read(const ModelState& state, Plan& plan) {
  if (!state.source) return;
  const auto read = state.source->read();
  std::int64_t tokens = 0;
  for (const SequenceId prompt : read) tokens += std::ssize(plan.sequences[prompt].tokens);
  plan.ablated_sequences += std::ssize(read);
  plan.ablated_tokens += tokens;
  plan.tokens_asked += tokens;
}

}  // namespace

PlanBuilder::PlanBuilder(const BoundRules& bound) : bound_(bound) { state({}, {}); }

void PlanBuilder::open(StateId state, const dsl::Intervention& sentence, const std::string& rule, bool of_change) {
  plan_.features.insert(sentence.feature);
  // A subspace is suppressed as its features are, all at once.
  const auto members = dsl::members_of(bound_.rules->features[sentence.feature]);
  for (const dsl::FeatureId feature : members.empty() ? std::vector{sentence.feature} : members) {
    plan_.features.insert(feature);
    plan_.states[state].sentences.push_back({sentence, rule, bound_.sites_of(sentence), {}, "", of_change});
    auto& opened = plan_.states[state].sentences.back();
    opened.sentence.feature = feature;
    if (!members.empty()) opened.subspace = sentence.feature;
  }
  if (!sentence.condition) return;
  for (dsl::FeatureId feature : dsl::features_read(*sentence.condition)) plan_.features.insert(feature);
}

void PlanBuilder::open(StateId state, const dsl::CircuitSuppression& suppression, const std::string& rule,
                       bool of_change) {
  plan_.states[state].replacements.push_back({suppression, rule, of_change, false});
  want_circuit(suppression.circuit, {});
}

StateId PlanBuilder::state(const std::vector<dsl::EditId>& edits, const std::vector<dsl::RuleId>& rules,
                           const dsl::Change* change, std::uint64_t seed, const Beside& beside) {
  const auto& [attacks, source, as_written, direct] = beside;
  const dsl::Attack* perturb = nullptr;
  if (attacks) {
    const auto& chain = bound_.rules->checks[*attacks].under_attacks;
    const auto found = std::ranges::find(chain, dsl::AttackKind::perturb, &dsl::Attack::kind);
    if (found != chain.end()) perturb = &*found;
  }
  const bool draws = perturb || (source && source->draws());
  if (edits.empty() && !draws && !(change && std::holds_alternative<dsl::ChangeEdit>(*change))) seed = 0;
  std::string key = "e";
  for (dsl::EditId edit : edits) key += std::to_string(edit) + ",";
  key += "r";
  for (dsl::RuleId rule : rules) key += std::to_string(rule) + ",";
  if (change) key += "c" + std::to_string(reinterpret_cast<std::uintptr_t>(change));
  if (perturb) key += "p" + std::to_string(*attacks);
  if (source) {
    key += (direct ? "d" : "a") + std::to_string(static_cast<int>(source->kind));
    for (const auto& set : source->sets) {
      key += ":";
      for (const SequenceId prompt : set) key += std::to_string(prompt) + ",";
    }
    for (const auto& [prompt, donor] : source->donors) key += std::to_string(prompt) + "<" + std::to_string(donor);
  }
  if (as_written) key += "w";
  key += "s" + std::to_string(seed);
  const auto [found, is_new] = state_ids_.emplace(key, plan_.states.size());
  if (!is_new) return found->second;

  const StateId id = found->second;
  plan_.states.emplace_back();
  const auto& declared = *bound_.rules;
  std::string label;
  const auto name = [&](const std::string& what) { label += (label.empty() ? "under " : ", ") + what; };
  const auto open_rule = [&](dsl::RuleId rule, bool of_change) {
    for (const auto& sentence : declared.rules[rule].interventions)
      open(id, sentence, declared.rules[rule].name, of_change);
    for (const auto& suppression : declared.rules[rule].circuits)
      open(id, suppression, declared.rules[rule].name, of_change);
  };
  plan_.states[id].edits = edits;
  plan_.states[id].seed = seed;
  plan_.states[id].as_written = as_written;
  for (dsl::EditId edit : edits) name("edit " + declared.edits[edit].name);
  for (dsl::RuleId rule : rules) {
    name("rule " + declared.rules[rule].name);
    open_rule(rule, false);
  }
  if (change) {
    plan_.states[id].change = change;
    if (const auto* sentence = std::get_if<dsl::Intervention>(change)) {
      name(sentence->text);
      open(id, *sentence, "", true);
    } else if (const auto* rule = std::get_if<dsl::ChangeRule>(change)) {
      name("rule " + declared.rules[rule->rule].name);
      open_rule(rule->rule, true);
    } else if (const auto* suppression = std::get_if<dsl::CircuitSuppression>(change)) {
      name(suppression->text);
      open(id, *suppression, "", true);
    } else if (const auto* patched = std::get_if<dsl::Patch>(change)) {
      name(patched->text + (direct ? " (direct)" : ""));
      if (patched->feature) {
        // One feature's part of the activation, which the source says what to set to.
        dsl::Intervention sentence;
        sentence.feature = *patched->feature;
        sentence.condition = patched->condition;
        sentence.text = patched->text;
        sentence.span = patched->span;
        open(id, sentence, "", true);
      } else {
        plan_.states[id].replacements.push_back({*patched, "", true, direct});
      }
    } else {
      const auto& edit = std::get<dsl::ChangeEdit>(*change);
      name("edit " + declared.edits[edit.edit].name);
      plan_.states[id].edits.push_back(edit.edit);
    }
  }
  for (dsl::EditId edit : plan_.states[id].edits) {
    for (const auto& edited : declared.edits[edit].changes) {
      if (const auto* remove = std::get_if<dsl::Remove>(&edited)) {
        plan_.features.insert(remove->feature);
        for (const dsl::FeatureId member : dsl::members_of(declared.features[remove->feature]))
          plan_.features.insert(member);
      }
      if (const auto* circuit = std::get_if<dsl::RemoveCircuit>(&edited)) want_circuit(circuit->circuit, {});
    }
  }
  if (perturb) {
    name("attack " + perturb->text);
    plan_.states[id].perturbed = attacks;
    if (const auto searched = bound_.perturbations.find({*attacks, seed}); searched != bound_.perturbations.end())
      plan_.states[id].perturbation = searched->second;
  }
  if (source) {
    plan_.states[id].source = source;
    const bool patches = change && std::holds_alternative<dsl::Patch>(*change);  // which says itself what is put in
    if (!patches) label += ", ablation " + std::string(dsl::ablation_name(source->kind));
  }
  count_read(plan_.states[id], plan_);
  if (seed > 0) label += ", seed " + std::to_string(bound_.seed + seed);
  plan_.states[id].label = label.empty() ? "as loaded" : label;
  return id;
}

StateId PlanBuilder::control(StateId treated, std::int64_t number, std::uint64_t seed, ControlKind kind) {
  static constexpr const char* kKinds[] = {"x", "-", "p"};
  const std::string key = kKinds[static_cast<int>(kind)] + std::to_string(treated) + "#" + std::to_string(number) +
                          "s" + std::to_string(seed);
  const auto [found, is_new] = state_ids_.emplace(key, plan_.states.size());
  if (!is_new) return found->second;
  plan_.states[treated].changes_recorded = true;
  ModelState state = plan_.states[treated];
  state.label += kind == ControlKind::direction    ? ", random direction " + std::to_string(number + 1)
                 : kind == ControlKind::wrong_sign ? ", wrong sign"
                                                   : ", random positions " + std::to_string(number + 1);
  state.control_kind = kind;
  state.controls = treated;
  state.control = number;
  state.seed = seed;
  state.changes_recorded = false;
  if (kind != ControlKind::direction) count_read(state, plan_);  // a direction needs no values
  plan_.states.push_back(std::move(state));
  return found->second;
}

SequenceId PlanBuilder::sequence(const BoundPrompt& prompt, std::span<const std::int64_t> continuation) {
  Sequence sequence{prompt.tokens, static_cast<std::int64_t>(prompt.tokens.size()), prompt.text};
  sequence.tokens.insert(sequence.tokens.end(), continuation.begin(), continuation.end());
  const auto [found, is_new] = sequence_ids_.emplace(sequence, plan_.sequences.size());
  if (is_new) plan_.sequences.push_back(std::move(sequence));
  return found->second;
}

Wants& PlanBuilder::want(StateId state, SequenceId sequence) {
  auto run = std::find_if(plan_.runs.begin(), plan_.runs.end(), [&](const Run& r) { return r.state == state; });
  if (run == plan_.runs.end()) run = plan_.runs.insert(plan_.runs.end(), Run{state, {}, std::nullopt, {}});
  return run->wants[sequence];
}

SequenceId PlanBuilder::ask(const BoundPrompt& prompt, std::span<const std::int64_t> continuation, std::int64_t times) {
  const SequenceId id = sequence(prompt, continuation);
  plan_.tokens_asked += static_cast<std::int64_t>(plan_.sequences[id].tokens.size()) * times;
  return id;
}

void PlanBuilder::want_logits(StateId state, SequenceId sequence, std::int64_t position, std::int64_t id, bool rank) {
  auto& logits = want(state, sequence).logits[position];
  logits.ids.insert(id);
  logits.rank = logits.rank || rank;
}

void PlanBuilder::want_top(StateId state, SequenceId sequence, std::int64_t position, std::int64_t count) {
  want(state, sequence).logits[position].top = count;
}

void PlanBuilder::want_feature(StateId state, SequenceId sequence, dsl::FeatureId feature) {
  want(state, sequence).features.insert(feature);
  plan_.features.insert(feature);
}

void PlanBuilder::want_kl(StateId state, SequenceId sequence) {
  want(loaded(), sequence).final_states = true;
  want(state, sequence).kl = true;
}

void PlanBuilder::want_firing(StateId state, SequenceId sequence) { want(state, sequence).firing = true; }

void PlanBuilder::want_generation(const GenerationKey& key) { plan_.generations.insert(key); }

void PlanBuilder::want_splice(const SpliceKey& key) {
  const bool is_new = plan_.splices.insert(key).second;
  for (const SequenceId id : key.sequences) {
    const auto tokens = SpliceKey::kRuns * std::ssize(plan_.sequences[id].tokens);
    plan_.tokens_asked += tokens;
    if (!is_new) continue;
    plan_.spliced_sequences += SpliceKey::kRuns;
    plan_.spliced_tokens += tokens;
  }
}

void PlanBuilder::want_encoding(const EncodingKey& key) {
  const bool is_new = plan_.encodings.insert(key).second;
  for (const SequenceId id : key.sequences) {
    const auto tokens = std::ssize(plan_.sequences[id].tokens);
    plan_.tokens_asked += tokens;
    if (!is_new) continue;
    plan_.spliced_sequences += 1;
    plan_.spliced_tokens += tokens;
  }
}

void PlanBuilder::want_circuit(const CircuitKey& key) {
  want_circuit(key.circuit, {});
  if (!key.as_found()) plan_.circuit_runs.insert(key);
}

void PlanBuilder::want_circuit(dsl::CircuitId circuit, const CircuitAsked& asked) {
  CircuitAsked& all = plan_.circuits[circuit];
  all.minimality = all.minimality || asked.minimality;
  all.stability = all.stability || asked.stability;
}

const std::vector<PlanPass>& plan_passes() {
  static const std::vector<PlanPass> kPasses = {
      {"fold", "turns unconditional interventions on linear writers into rank-one weight edits", passes::fold},
      {"stop-early", "ends passes that want no logits after the last site read", passes::stop_early},
      {"share-prefixes", "computes tokens that several sequences begin with once", passes::share_prefixes},
      {"batch", "packs the remaining sequences into passes", passes::batch},
  };
  return kPasses;
}

namespace {

/// `placed`: whether every sequence must be in a batch by now.
void verify(const Plan& plan, std::string_view pass, bool placed) {
  const auto broken = [&](const std::string& what) {
    throw std::logic_error("plan pass " + std::string(pass) + " broke the plan: " + what);
  };
  for (const auto& run : plan.runs) {
    std::set<SequenceId> seen;
    for (const auto& batch : run.batches) {
      const auto& first = plan.sequences[batch.sequences.front()];
      for (SequenceId id : batch.sequences) {
        if (!seen.insert(id).second) broken("a sequence is computed twice");
        const auto& sequence = plan.sequences[id];
        if (batch.shared_prefix == 0) continue;
        if (batch.shared_prefix >= std::min<std::int64_t>(sequence.prompt_length, sequence.tokens.size()) ||
            !std::equal(first.tokens.begin(), first.tokens.begin() + batch.shared_prefix, sequence.tokens.begin())) {
          broken("a shared prefix is not shared");
        }
      }
    }
    if (placed && seen.size() != run.wants.size()) broken("a sequence is lost");
  }
}

}  // namespace

Plan optimise(Plan plan, const BoundRules& bound, const std::set<std::string>& off) {
  // Controls repeat the changes of the state they control, so that one runs first.
  std::stable_sort(plan.runs.begin(), plan.runs.end(), [](const Run& a, const Run& b) { return a.state < b.state; });
  for (const auto& pass : plan_passes()) {
    if (off.contains(std::string(pass.name))) continue;
    plan = pass.apply(std::move(plan), bound);
    plan.passes.emplace_back(pass.name);
    verify(plan, pass.name, false);
  }
  for (auto& run : plan.runs) {
    std::set<SequenceId> placed;
    for (const auto& batch : run.batches) placed.insert(batch.sequences.begin(), batch.sequences.end());
    for (const auto& [id, wants] : run.wants) {
      if (!placed.contains(id)) run.batches.push_back({{id}, 0});
    }
  }
  verify(plan, "batch", true);
  return plan;
}

}  // namespace proviso::runtime

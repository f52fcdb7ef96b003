#include "runtime/state_run.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/folds.hpp"
#include "runtime/generate.hpp"
#include "runtime/model/pass_groups.hpp"
#include "runtime/model/random.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

namespace {

constexpr std::size_t kFoldProbeSequences = 16;

/// Sampled texts depend on the prompt, not on where in a plan it stands.
std::uint64_t content_seed(const Sequence& sequence) {
  std::uint64_t seed = 0;
  for (std::int64_t token : sequence.tokens) seed = model::mix_seed(seed, token);
  return seed;
}

}  // namespace

StateRun::StateRun(Context context, Evidence& evidence)
    : c_(std::move(context)), evidence_(evidence), applied_(c_.transformer) {}
StateRun::~StateRun() = default;

void StateRun::carry_out() {
  auto& record = evidence_.states_[c_.state];
  record.activity.resize(state().sentences.size() + state().replacements.size());
  record.fold_changed.assign(record.activity.size(), false);
  std::vector<const Run*> runs;
  for (const auto& run : c_.plan.runs) {
    if (run.state == c_.state) runs.push_back(&run);
  }
  std::vector<GenerationKey> generations;
  for (const auto& key : c_.plan.generations) {
    if (key.state == c_.state) generations.push_back(key);
  }
  for (const auto& replacement : state().replacements) {
    const auto* patch = std::get_if<dsl::Patch>(&replacement.what);
    using Source = dsl::Patch::Source;
    if (patch == nullptr || (patch->source != Source::zero && patch->source != Source::mean)) continue;
    for (const auto& site : c_.bound.expand(patch->sites))
      patch_values_[site] = at::zeros({c_.bound.card->site_width(site)}, at::kFloat);
  }
  // Quantiles are measured on the model as loaded: everything is compiled before a weight changes.
  std::vector<std::unique_ptr<Hooks>> hooks;
  for (const Run* run : runs) hooks.push_back(compile(run, false));
  auto generating = compile(nullptr, false);
  auto splicing = compile(nullptr, false);
  std::map<CircuitKey, std::pair<std::unique_ptr<Hooks>, std::unique_ptr<Hooks>>> of_circuits;
  for (const auto& key : c_.plan.circuit_runs) {
    // One sees what the sentences do to the prompts; the other acts where edges are patched, and nobody counts that.
    if (key.state == c_.state) of_circuits.emplace(key, std::pair(compile(nullptr, false), compile(nullptr, false)));
  }
  const bool folds = std::any_of(state().sentences.begin(), state().sentences.end(),
                                 [](const PlannedSentence& s) { return !s.folds.empty(); });
  auto probe = folds ? compile(nullptr, true) : nullptr;

  apply_edits();
  const bool as_treated = !state().controls || state().control_kind != ControlKind::direction;
  if (state().source && as_treated) patches_sites() ? read_patched() : read_ablated();
  if (folds) {
    probe_folds(*probe);
    apply_folds();
  }
  if (state().as_written) {
    for (const auto& [name, value] : *c_.written) applied_.replace(name, value);
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    for (const auto& one : runs[i]->batches) batch(*runs[i], one, *hooks[i]);
    keep_activity(*hooks[i], false);
  }
  if (!generations.empty()) {
    generate(generations, *generating);
    keep_activity(*generating, false);
  }
  for (const auto& key : c_.plan.splices) {
    if (key.state == c_.state) splice(key, *splicing);
  }
  for (const auto& key : c_.plan.encodings) {
    if (key.state == c_.state) encode(key, *splicing);
  }
  for (auto& [key, of_key] : of_circuits) circuit(key, *of_key.first, *of_key.second);
  applied_.revert();
}

void StateRun::open(const std::function<void(HookPass&, const ConditionSet&)>& use) {
  evidence_.states_[c_.state].fold_changed.assign(state().sentences.size() + state().replacements.size(), false);
  const auto hooks = compile(nullptr, false);
  hooks->pass->measure_changes(false);
  apply_edits();
  apply_folds();
  use(*hooks->pass, hooks->program.conditions());
  applied_.revert();
}

void StateRun::perturb(Hooks& hooks, const model::PackedLayout& layout,
                       const std::function<SequenceId(std::size_t row)>& of, PassPerturbation& kept) const {
  if (!state().perturbation) return;
  kept = in_pass(*state().perturbation, layout, c_.transformer.options().device, [&](std::size_t row) {
    const auto& sequence = c_.plan.sequences[of(row)];
    return std::vector(sequence.tokens.begin(), sequence.tokens.begin() + sequence.prompt_length);
  });
  hooks.pass->set_perturbation(&kept);
}

void StateRun::each_alone(
    const std::vector<SequenceId>& sequences, Hooks& hooks,
    const std::function<void(const std::vector<model::Row>& rows, const VisitorOfRows& visitor)>& use) {
  std::vector<model::Row> rows;
  std::vector<RowMemory> memories;
  for (const SequenceId id : sequences) {
    const Sequence& sequence = c_.plan.sequences[id];
    rows.push_back({sequence.tokens, sequence.prompt_length});
  }
  PassPerturbation added;
  const auto visitor = [&](std::size_t first, std::size_t count) -> model::SiteVisitor* {
    const std::vector<model::Row> of_pass(rows.begin() + first, rows.begin() + first + count);
    perturb(
        hooks, rows_of(of_pass, 0), [&](std::size_t row) { return sequences[first + row]; }, added);
    std::vector<std::string> prompts;
    for (std::size_t i = first; i < first + count; ++i) prompts.push_back(c_.plan.sequences[sequences[i]].prompt);
    return begin(hooks, prompts, memories);
  };
  if (rows.empty()) return;
  use(rows, visitor);
  hooks.pass->set_perturbation(nullptr);
}

/// The sentences in force act beside the splice.
void StateRun::splice(const SpliceKey& key, Hooks& hooks) {
  each_alone(key.sequences, hooks, [&](const std::vector<model::Row>& rows, const VisitorOfRows& visitor) {
    evidence_.spliced_[key] = spliced_losses(c_.transformer, *c_.autoencoders.get(key.folder), rows, visitor);
    for (const auto& row : rows) {
      evidence_.sequences += SpliceKey::kRuns;
      evidence_.tokens += SpliceKey::kRuns * std::ssize(row.tokens);
    }
  });
}

void StateRun::encode(const EncodingKey& key, Hooks& hooks) {
  evidence_.encoded_[key] = {};
  each_alone(key.sequences, hooks, [&](const std::vector<model::Row>& rows, const VisitorOfRows& visitor) {
    evidence_.encoded_[key] = encode_prompts(c_.transformer, c_.autoencoders.get(key.folder), rows, visitor);
    for (const auto& row : rows) {
      ++evidence_.sequences;
      evidence_.tokens += std::ssize(row.tokens);
    }
  });
}

std::unique_ptr<StateRun::Hooks> StateRun::compile(const Run* run, bool folds_as_hooks) const {
  auto hooks = std::make_unique<Hooks>(c_.features, *c_.bound.card);
  const auto token_id = [this](const std::string& text) { return c_.bound.token_id(text); };
  for (const auto& sentence : state().sentences) {
    auto sites = sentence.hooks;
    if (folds_as_hooks) sites.insert(sites.end(), sentence.folds.begin(), sentence.folds.end());
    hooks->first_step.push_back(
        hooks->program.add(sentence.sentence, sites, sentence.of_change, token_id, c_.quantile));
    hooks->sites.push_back(std::move(sites));
  }
  if (!state().replacements.empty()) add_replacements(hooks->program, true);
  if (run) {
    std::set<dsl::FeatureId> features;
    for (const auto& [id, wants] : run->wants) {
      features.insert(wants.features.begin(), wants.features.end());
      if (wants.final_states) hooks->program.capture(kFinalNorm);
    }
    for (dsl::FeatureId feature : features) {
      hooks->program.record(feature);
      hooks->program.record_norm(model::sink_site(c_.features[feature].site, c_.bound.card->config));
    }
    hooks->features.assign(features.begin(), features.end());
  }
  hooks->program.finish(c_.transformer.options().device);
  hooks->pass = std::make_unique<HookPass>(hooks->program);
  hooks->pass->measure_changes(true);
  return hooks;
}

void StateRun::apply_edits() {
  if (!c_.edits) return;
  const bool control_of_edit = state().controls && std::holds_alternative<dsl::ChangeEdit>(*state().change);
  for (const auto& edit : *c_.edits) {
    const bool turned = control_of_edit && &edit == &c_.edits->back();
    const auto deltas =
        !turned ? edit.deltas
        : state().control_kind == ControlKind::wrong_sign
            ? turned_round(edit.deltas)
            : turned_at_random(edit.deltas, c_.transformer, model::mix_seed(c_.seed + state().seed, state().control));
    bool changed = false;
    for (const auto& delta : deltas) changed = applied_.apply(delta) || changed;
    evidence_.states_[c_.state].edit_changed.push_back(changed);
  }
}

/// What folded sentences do is no longer seen in a pass: their activity is measured beforehand, as hooks, on
/// the state's first prompts.
void StateRun::probe_folds(Hooks& hooks) {
  std::set<SequenceId> ids;
  for (const auto& run : c_.plan.runs) {
    if (run.state != c_.state) continue;
    for (const auto& [id, wants] : run.wants) ids.insert(id);
  }
  for (const auto& key : c_.plan.generations) {
    if (key.state == c_.state) ids.insert(key.sequence);
  }
  std::vector<model::Row> rows;
  std::vector<SequenceId> probed;
  std::vector<RowMemory> memories;
  std::int64_t tokens = 0;
  const auto add = [&](const std::vector<std::int64_t>& text, std::int64_t prompt_length, const std::string& prompt) {
    tokens += std::ssize(text);
    if (!rows.empty() && (rows.size() == kFoldProbeSequences || tokens > model::kTokensInPass)) return false;
    rows.push_back({text, prompt_length});
    memories.push_back(hooks.program.conditions().begin_row(prompt));
    return true;
  };
  for (SequenceId id : ids) {
    const auto& sequence = c_.plan.sequences[id];
    if (add(sequence.tokens, sequence.prompt_length, sequence.prompt)) probed.push_back(id);
  }
  for (const auto& key : c_.plan.circuit_runs) {
    if (key.state != c_.state) continue;
    for (const auto& pair : c_.bound.circuit(key.circuit, key.attacks, key.seed).measured()) {
      for (const auto* prompt : {&pair.clean, &pair.corrupt})
        add(prompt->tokens, std::ssize(prompt->tokens), prompt->text);
    }
  }
  if (rows.empty()) return;
  std::vector<RowMemory*> pointers;
  for (auto& memory : memories) pointers.push_back(&memory);
  hooks.pass->begin(std::move(pointers));
  PassPerturbation added;
  perturb(
      hooks, rows_of(rows, 0), [&](std::size_t row) { return probed[row]; }, added);
  model::Pass pass;
  pass.rows = &rows;
  pass.visitor = hooks.pass.get();
  pass.stop_after = dsl::Site{dsl::SiteKind::resid_post, c_.bound.card->config.layers - 1, -1};
  c_.transformer.forward(pass);
  hooks.pass->set_perturbation(nullptr);
  keep_activity(hooks, true);
}

void StateRun::apply_folds() {
  auto& fold_changed = evidence_.states_[c_.state].fold_changed;
  for (const auto& folded : fold_sentences(state().sentences, c_.features, c_.transformer)) {
    bool changed = false;
    for (const auto& delta : folded.deltas) changed = applied_.apply(delta) || changed;
    for (std::size_t sentence : folded.sentences) fold_changed[sentence] = fold_changed[sentence] || changed;
  }
}

ControlChange StateRun::control_change(const model::PackedLayout& layout,
                                       const std::function<const SentenceTraces&(std::size_t)>& treated) const {
  ControlChange control;
  control.kind = state().control_kind;
  control.seed = model::mix_seed(c_.seed + state().seed, state().control);
  if (control.kind != ControlKind::direction) return control;
  std::int64_t n = 0;
  for (const auto& span : layout.rows) n += span.length;
  for (std::size_t r = 0; r < layout.rows.size(); ++r) {
    const auto& span = layout.rows[r];
    for (const auto& [site, norms] : treated(r).change_norms) {
      auto& lengths = control.norms[site];
      lengths.resize(static_cast<std::size_t>(n), 0.0F);
      // A control may generate on where the treated model had ended: there it takes the mean length.
      const float mean =
          norms.empty() ? 0 : std::accumulate(norms.begin(), norms.end(), 0.0F) / static_cast<float>(norms.size());
      for (std::int64_t i = 0; i < span.length; ++i) {
        const auto position = static_cast<std::size_t>(span.first_position + i);
        lengths[static_cast<std::size_t>(span.begin + i)] = position < norms.size() ? norms[position] : mean;
      }
    }
  }
  return control;
}

void StateRun::keep_activity(const Hooks& hooks, bool folds_only) {
  auto& record = evidence_.states_[c_.state].activity;
  for (std::size_t i = 0; i < hooks.sites.size(); ++i) {
    const auto& folds = state().sentences[i].folds;
    for (std::size_t s = 0; s < hooks.sites[i].size(); ++s) {
      const dsl::Site& site = hooks.sites[i][s];
      if (folds_only && std::find(folds.begin(), folds.end(), site) == folds.end()) continue;
      record[i][site] += hooks.pass->activity(hooks.first_step[i] + s);
    }
  }
  for (std::size_t i = 0; i < state().replacements.size() && !folds_only; ++i) {
    for (const auto& [site, activity] : hooks.pass->replacing()->activity(i))
      record[hooks.sites.size() + i][site] += activity;
  }
}

void StateRun::generate(const std::vector<GenerationKey>& keys, Hooks& hooks) {
  std::vector<TextRequest> requests;
  std::vector<std::pair<const GenerationKey*, std::size_t>> which;  // the key, and the sample's number
  for (const auto& key : keys) {
    const auto& sequence = c_.plan.sequences[key.sequence];
    for (std::int64_t sample = 0; sample < key.samples; ++sample) {
      requests.push_back({sequence.tokens, hooks.program.conditions().begin_row(sequence.prompt), key.tokens,
                          key.temperature, model::mix_seed(c_.seed + key.seed, content_seed(sequence), sample)});
      which.emplace_back(&key, static_cast<std::size_t>(sample));
    }
  }
  std::vector<GeneratedText> texts(requests.size());
  TextWriter writer(c_.transformer, *c_.bound.tokenizer, *hooks.pass);
  ControlChange control;
  PassPerturbation added;
  HookPass::Ablated put_in;
  writer.before_pass = [&](const model::PackedLayout& layout, std::span<const std::size_t> rows) {
    const auto sequence = [&which, rows](std::size_t r) { return which[rows[r]].first->sequence; };
    perturb(hooks, layout, sequence, added);
    if (ablation_) {
      put_in = ablated(sequence);
      hooks.pass->set_ablated(&put_in);
    }
    if (!patched_.empty()) hooks.pass->replacing()->set_donors(donors(sequence, *hooks.program.replacements()));
    if (!is_control_of_hooks()) return;
    control = control_change(layout, [&](std::size_t r) -> const SentenceTraces& {
      const auto& [key, sample] = which[rows[r]];
      GenerationKey treated = *key;
      treated.state = *state().controls;
      return evidence_.texts(treated)[sample];
    });
    hooks.pass->set_control(&control);
  };
  writer.after_pass = [&](const model::PackedLayout& layout, std::span<const std::size_t> rows) {
    for (std::size_t r = 0; r < rows.size(); ++r) trace(hooks, layout.rows[r], texts[rows[r]]);
    evidence_.tokens += layout.size();
  };
  const auto written = writer.write(requests);
  hooks.pass->set_control(nullptr);
  hooks.pass->set_perturbation(nullptr);
  hooks.pass->set_ablated(nullptr);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    texts[i].tokens = written[i].tokens;
    texts[i].text = c_.bound.tokenizer->decode(written[i].tokens);
    texts[i].finite = written[i].finite;
    evidence_.texts_[*which[i].first].push_back(std::move(texts[i]));
  }
  evidence_.sequences += static_cast<std::int64_t>(requests.size());
}

bool StateRun::is_control_of_hooks() const {
  const auto is_of_change = [](const auto& each) { return each.of_change; };
  return state().controls && (std::any_of(state().sentences.begin(), state().sentences.end(), is_of_change) ||
                              std::any_of(state().replacements.begin(), state().replacements.end(), is_of_change));
}

}  // namespace proviso::runtime

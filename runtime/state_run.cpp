#include "runtime/state_run.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "runtime/folds.hpp"
#include "runtime/generate.hpp"
#include "runtime/model/linear.hpp"
#include "runtime/model/pass_groups.hpp"
#include "runtime/model/random.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

namespace {

constexpr std::size_t kFoldProbeSequences = 16;
constexpr dsl::Site kFinalNorm{dsl::SiteKind::final_norm, -1, -1};

template <class T>
void append(std::vector<T>& to, std::span<const T> values) {
  to.insert(to.end(), values.begin(), values.end());
}

/// Without position 0.
model::PackedLayout::RowSpan after_first(model::PackedLayout::RowSpan span) {
  if (span.first_position > 0 || span.length == 0) return span;
  return {span.begin + 1, span.length - 1, 1, span.prompt_length};
}

std::int64_t count(const Mask& mask, const model::PackedLayout::RowSpan& span) {
  return std::accumulate(mask.begin() + span.begin, mask.begin() + span.begin + span.length, std::int64_t{0});
}

/// Sampled texts depend on the prompt, not on where in a plan it stands.
std::uint64_t content_seed(const Sequence& sequence) {
  std::uint64_t seed = 0;
  for (std::int64_t token : sequence.tokens) seed = model::mix_seed(seed, token);
  return seed;
}

/// How rows will lie in a pass.
model::PackedLayout rows_of(const std::vector<model::Row>& rows, std::int64_t first_position) {
  model::PackedLayout layout;
  std::int64_t begin = 0;
  for (const auto& row : rows) {
    layout.rows.push_back({begin, std::ssize(row.tokens), first_position, row.prompt_length});
    begin += std::ssize(row.tokens);
  }
  return layout;
}

}  // namespace

/// The rows of one forward pass, and the sequences that each stands for (several where it is their prefix).
struct StateRun::PassRows {
  std::vector<model::Row> rows;
  std::vector<std::vector<SequenceId>> owners;
  std::vector<RowMemory> memories;
  std::int64_t first_position = 0;
  model::KeyValueCache* cache = nullptr;
  bool append = false;
};

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
  if (state().ablation && as_treated) read_ablated();
  if (state().patch && as_treated) read_patched();
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

void StateRun::batch(const Run& run, const Batch& batch, Hooks& hooks) {
  const std::int64_t prefix = batch.shared_prefix;
  const auto& first = c_.plan.sequences[batch.sequences.front()];
  const auto begin_row = [&](SequenceId id) {
    return hooks.program.conditions().begin_row(c_.plan.sequences[id].prompt);
  };
  model::KeyValueCache prefix_cache;
  RowMemory prefix_memory;
  if (prefix > 0) {
    PassRows shared;
    // No position of a shared prefix is a last prompt token or a generated one.
    shared.rows.push_back(
        {{first.tokens.begin(), first.tokens.begin() + prefix}, std::numeric_limits<std::int64_t>::max()});
    shared.owners.push_back(batch.sequences);
    shared.memories.push_back(begin_row(batch.sequences.front()));
    shared.cache = &prefix_cache;
    shared.append = true;
    pass(run, shared, hooks);
    prefix_memory = shared.memories.front();
  }
  for (std::size_t begin = 0; begin < batch.sequences.size();) {
    PassRows rows;
    rows.first_position = prefix;
    std::int64_t tokens = 0;
    for (; begin < batch.sequences.size(); ++begin) {
      const SequenceId id = batch.sequences[begin];
      const auto& sequence = c_.plan.sequences[id];
      const auto own = static_cast<std::int64_t>(sequence.tokens.size()) - prefix;
      if (!rows.rows.empty() && tokens + own > model::kTokensInPass) break;
      tokens += own;
      rows.rows.push_back({{sequence.tokens.begin() + prefix, sequence.tokens.end()}, sequence.prompt_length});
      rows.owners.push_back({id});
      rows.memories.push_back(prefix > 0 ? prefix_memory : begin_row(id));
    }
    model::KeyValueCache forked;
    if (prefix > 0) {
      forked = prefix_cache.fork(static_cast<std::int64_t>(rows.rows.size()));
      rows.cache = &forked;
    }
    pass(run, rows, hooks);
    evidence_.sequences += static_cast<std::int64_t>(rows.rows.size());
  }
  const auto& config = c_.bound.card->config;
  for (SequenceId id : batch.sequences) {
    auto& evidence = seen(id);
    for (auto& [feature, activations] : evidence.features) {
      evidence.ordinary[feature] =
          model::ordinary_positions(evidence.norms.at(model::sink_site(c_.features[feature].site, config)));
    }
    evidence.norms.clear();
  }
}

void StateRun::pass(const Run& run, PassRows& rows, Hooks& hooks) {
  std::vector<RowMemory*> memories;
  for (auto& memory : rows.memories) memories.push_back(&memory);
  hooks.pass->begin(std::move(memories));

  std::vector<std::pair<std::size_t, std::int64_t>> at;  // (row, position) of each logits row
  std::vector<std::int64_t> logits_at;
  std::int64_t packed = 0;
  const model::PackedLayout expected = rows_of(rows.rows, rows.first_position);
  for (std::size_t r = 0; r < rows.rows.size(); ++r) {
    const auto length = static_cast<std::int64_t>(rows.rows[r].tokens.size());
    std::vector<std::uint8_t> wanted(static_cast<std::size_t>(length), 0);
    for (SequenceId id : rows.owners[r]) {
      const auto& wants = run.wants.at(id);
      if (wants.kl) std::fill(wanted.begin(), wanted.end(), 1);
      for (auto want = wants.logits.lower_bound(rows.first_position);
           want != wants.logits.end() && want->first < rows.first_position + length; ++want) {
        wanted[static_cast<std::size_t>(want->first - rows.first_position)] = 1;
      }
    }
    for (std::int64_t i = 0; i < length; ++i) {
      if (!wanted[static_cast<std::size_t>(i)]) continue;
      logits_at.push_back(packed + i);
      at.emplace_back(r, rows.first_position + i);
    }
    packed += length;
  }
  ControlChange control;
  if (is_control_of_hooks()) {
    control = control_change(expected, [&](std::size_t r) -> const SentenceTraces& {
      return evidence_.at(*state().controls, rows.owners[r].front());
    });
    hooks.pass->set_control(&control);
  }
  PassPerturbation added;
  perturb(
      hooks, expected, [&](std::size_t r) { return rows.owners[r].front(); }, added);
  // Sequences that share a row begin with one prompt: see `share_prefixes`.
  const auto put_in = ablated([&](std::size_t r) { return rows.owners[r].front(); });
  if (ablation_) hooks.pass->set_ablated(&put_in);
  if (!patched_.empty())
    hooks.pass->replacing()->set_donors(
        donors([&](std::size_t r) { return rows.owners[r].front(); }, *hooks.program.replacements()));

  model::Pass pass;
  pass.rows = &rows.rows;
  pass.cache = rows.cache;
  pass.append = rows.append;
  pass.visitor = hooks.pass.get();
  pass.stop_after = run.stop_after;
  pass.logits_at = logits_at;
  pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
    read_logits(run, rows,
                std::span(at).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(logits.size(0))),
                logits);
  };
  const auto layout = c_.transformer.forward(pass);
  hooks.pass->set_control(nullptr);
  hooks.pass->set_perturbation(nullptr);
  hooks.pass->set_ablated(nullptr);
  evidence_.tokens += layout.size();

  for (std::size_t r = 0; r < rows.rows.size(); ++r) {
    const auto& span = layout.rows[r];
    for (SequenceId id : rows.owners[r]) {
      auto& evidence = seen(id);
      const auto& wants = run.wants.at(id);
      for (dsl::FeatureId feature : wants.features) {
        const auto activations = hooks.pass->activation(feature).subspan(span.begin, span.length);
        evidence.finite = evidence.finite && std::all_of(activations.begin(), activations.end(),
                                                         [](float value) { return std::isfinite(value); });
        append(evidence.features[feature], activations);
      }
      std::set<dsl::Site> norm_sites;
      for (dsl::FeatureId feature : wants.features) {
        norm_sites.insert(model::sink_site(c_.features[feature].site, c_.bound.card->config));
      }
      for (const auto& site : norm_sites)
        append(evidence.norms[site], hooks.pass->norm(site).subspan(span.begin, span.length));
      if (wants.final_states) {
        const auto part = hooks.pass->captured(kFinalNorm).narrow(0, span.begin, span.length);
        evidence.final_states = evidence.final_states.defined() ? at::cat({evidence.final_states, part}) : part.clone();
      }
      trace(hooks, span, evidence);
    }
  }
}

/// Adds what the sentences did to one row of the last pass.
void StateRun::trace(const Hooks& hooks, const model::PackedLayout::RowSpan& span, SentenceTraces& traces) const {
  const std::size_t replaced = state().replacements.size();
  traces.changed.resize(hooks.sites.size() + replaced, 0);
  traces.fired.resize(hooks.sites.size() + replaced, 0);
  for (std::size_t i = 0; i < replaced; ++i) {
    const Mask& moved = hooks.pass->replacing()->moved(i);
    if (moved.empty()) continue;  // a control stands in its place
    traces.changed[hooks.sites.size() + i] += count(moved, span);
    traces.fired[hooks.sites.size() + i] += after_first(span).length;
  }
  for (std::size_t i = 0; i < hooks.sites.size(); ++i) {
    for (std::size_t s = 0; s < hooks.sites[i].size(); ++s) {
      const std::size_t step = hooks.first_step[i] + s;
      if (hooks.pass->moved(step).empty()) continue;  // the pass ended before this site
      traces.changed[i] += count(hooks.pass->moved(step), span);
      if (s == 0) traces.fired[i] += count(hooks.pass->fired(step), after_first(span));
    }
  }
  if (!state().changes_recorded) return;
  for (const auto& [site, norms] : hooks.pass->change_norms()) {
    append(traces.change_norms[site], std::span<const float>(norms).subspan(span.begin, span.length));
  }
}

void StateRun::read_logits(const Run& run, const PassRows& rows,
                           std::span<const std::pair<std::size_t, std::int64_t>> at, const at::Tensor& logits) {
  const auto values = logits.cpu().contiguous();
  const auto normalizers = at::logsumexp(values, at::IntArrayRef{1}).to(at::kDouble).contiguous();
  const std::int64_t vocabulary = values.size(1);
  const auto* data = values.const_data_ptr<float>();

  std::vector<std::int64_t> kl_rows;
  std::vector<at::Tensor> loaded_states;
  std::vector<SequenceEvidence*> kl_into;
  for (std::size_t i = 0; i < at.size(); ++i) {
    const auto [row, position] = at[i];
    const float* logit = data + static_cast<std::int64_t>(i) * vocabulary;
    std::int64_t argmax = -1;
    for (SequenceId id : rows.owners[row]) {
      const auto& wants = run.wants.at(id);
      auto& evidence = seen(id);
      if (const auto want = wants.logits.find(position); want != wants.logits.end()) {
        if (argmax < 0) argmax = likeliest_token(std::span(logit, static_cast<std::size_t>(vocabulary)));
        auto& seen_here = evidence.logits[position];
        seen_here.log_normalizer = normalizers.const_data_ptr<double>()[i];
        evidence.finite = evidence.finite && std::isfinite(seen_here.log_normalizer);
        seen_here.argmax = argmax;
        for (std::int64_t token : want->second.ids) {
          auto& about = seen_here.tokens[token];
          about.logit = logit[token];
          if (!want->second.rank) continue;
          about.rank = 1 + std::count_if(logit, logit + vocabulary, [&](float other) { return other > logit[token]; }) +
                       std::count(logit, logit + token, logit[token]);
        }
        if (want->second.top > 0) {
          seen_here.top = likeliest_tokens(std::span(logit, static_cast<std::size_t>(vocabulary)), want->second.top);
          for (std::int64_t token : seen_here.top) seen_here.tokens[token].logit = logit[token];
        }
      }
      if (wants.kl) {
        kl_rows.push_back(static_cast<std::int64_t>(i));
        loaded_states.push_back(evidence_.at(0, id).final_states[position]);
        kl_into.push_back(&evidence);
      }
    }
  }
  if (kl_rows.empty()) return;
  const auto states =
      at::stack(loaded_states).to(c_.loaded_unembedding.scalar_type()).to(c_.loaded_unembedding.device());
  const auto before = states.matmul(c_.loaded_unembedding.t()).to(at::kFloat).cpu();
  const auto loaded = at::log_softmax(model::soft_cap(before, c_.transformer.config().logits_cap), 1);
  const auto now = at::log_softmax(values.index_select(0, at::tensor(kl_rows, at::kLong)), 1);
  const auto kl = (loaded.exp() * (loaded - now)).sum(1, /*keepdim=*/false, at::kDouble).contiguous();
  for (std::size_t i = 0; i < kl_rows.size(); ++i) {
    const double divergence = kl.const_data_ptr<double>()[i];
    kl_into[i]->finite = kl_into[i]->finite && std::isfinite(divergence);
    kl_into[i]->kl.push_back(divergence < 0 ? 0 : divergence);  // rounding may put an equal pair below 0
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

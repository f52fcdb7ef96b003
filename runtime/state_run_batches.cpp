#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "runtime/generate.hpp"
#include "runtime/model/linear.hpp"
#include "runtime/model/pass_groups.hpp"
#include "runtime/model/sinks.hpp"
#include "runtime/state_run.hpp"

namespace proviso::runtime {

namespace {

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

model::PackedLayout StateRun::rows_of(const std::vector<model::Row>& rows, std::int64_t first_position) {
  model::PackedLayout layout;
  std::int64_t begin = 0;
  for (const auto& row : rows) {
    layout.rows.push_back({begin, std::ssize(row.tokens), first_position, row.prompt_length});
    begin += std::ssize(row.tokens);
  }
  return layout;
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

}  // namespace proviso::runtime

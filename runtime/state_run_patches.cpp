#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "runtime/ablation.hpp"
#include "runtime/model/pass_groups.hpp"
#include "runtime/model/random.hpp"
#include "runtime/model/sinks.hpp"
#include "runtime/state_run.hpp"

namespace proviso::runtime {

void StateRun::add_replacements(HookProgram& program, bool with_change) const {
  auto& replacements = program.replacements();
  replacements.emplace(c_.transformer);
  for (const auto& planned : state().replacements) {
    if (planned.of_change && !with_change) continue;
    if (const auto* suppression = std::get_if<dsl::CircuitSuppression>(&planned.what)) {
      replacements->add(c_.circuits->at(suppression->circuit).parts, suppression->share, planned.of_change);
      continue;
    }
    const auto& patch = std::get<dsl::Patch>(planned.what);
    std::optional<std::size_t> condition;
    if (patch.condition) {
      condition =
          program.condition(*patch.condition, [this](const std::string& text) { return c_.bound.token_id(text); });
    }
    const auto sites = c_.bound.expand(patch.sites);
    std::vector<at::Tensor> values;
    for (const auto& site : sites) {
      const auto put_in = patch_values_.find(site);
      values.push_back(put_in == patch_values_.end() ? at::Tensor() : put_in->second);
    }
    ReplacedPart part;
    part.condition = condition;
    part.of_change = planned.of_change;
    part.direct = planned.direct;
    part.resampled = patch.source == dsl::Patch::Source::resample;
    replacements->add(sites, values, std::move(part));
  }
  if (replacements->count() == 0) replacements.reset();
}

bool StateRun::patches_sites() const {
  return std::ranges::any_of(state().replacements, [](const PlannedReplacement& replacement) {
    return std::holds_alternative<dsl::Patch>(replacement.what);
  });
}

void StateRun::read_patched() {
  const PlannedSource& planned = *state().source;
  std::vector<dsl::Site> sites;
  for (const auto& replacement : state().replacements) {
    if (const auto* patch = std::get_if<dsl::Patch>(&replacement.what)) sites = c_.bound.expand(patch->sites);
  }
  HookProgram program(c_.features, *c_.bound.card);
  for (const auto& sentence : state().sentences) {
    if (sentence.of_change) continue;
    program.add(
        sentence.sentence, sentence.hooks, false, [this](const std::string& text) { return c_.bound.token_id(text); },
        c_.quantile);
  }
  add_replacements(program, false);
  for (const auto& site : sites) {
    program.capture(dsl::whole(site));
    program.record_norm(model::sink_site(site, c_.bound.card->config));
  }
  program.finish(c_.transformer.options().device);
  HookPass hooks(program);

  const auto read = planned.read();
  const auto part = [&](const dsl::Site& site, const at::Tensor& whole) {
    const std::int64_t width = c_.bound.card->site_width(site);
    return whole.narrow(1, site.head < 0 ? 0 : site.head * width, width);
  };
  std::map<dsl::Site, std::pair<at::Tensor, std::int64_t>> sums;  // of the prompts' means; prompts
  std::vector<std::map<dsl::Site, Given>> of_sets;
  const auto length = [&](std::size_t i) { return std::ssize(c_.plan.sequences[read[i]].tokens); };
  for (const auto& [begin, end] : model::pass_groups(read.size(), length)) {
    std::vector<model::Row> rows;
    std::vector<RowMemory> memories;
    for (std::size_t i = begin; i < end; ++i) {
      const Sequence& sequence = c_.plan.sequences[read[i]];
      rows.push_back({sequence.tokens, sequence.prompt_length});
      memories.push_back(program.conditions().begin_row(sequence.prompt));
    }
    std::vector<RowMemory*> pointers;
    for (auto& memory : memories) pointers.push_back(&memory);
    hooks.begin(std::move(pointers));
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &hooks;
    pass.logits_at = std::vector<std::int64_t>{};
    const auto layout = c_.transformer.forward(pass);
    evidence_.tokens += layout.size();
    evidence_.sequences += std::ssize(rows);
    for (std::size_t i = begin; i < end; ++i) {
      const auto& span = layout.rows[i - begin];
      for (const auto& site : sites) {
        const at::Tensor own = part(site, hooks.captured(dsl::whole(site))).narrow(0, span.begin, span.length);
        if (!planned.donors.empty()) {
          const auto& prompt = c_.plan.sequences[planned.donors[i].first].tokens;
          patched_[prompt][site] = own.clone();
          continue;
        }
        const auto norms = hooks.norm(model::sink_site(site, c_.bound.card->config));
        const auto ordinary = model::ordinary_positions(norms.subspan(span.begin, span.length));
        if (planned.draws()) {
          of_sets.resize(i + 1);
          of_sets.back()[site] = {own.clone(), ordinary};
          continue;
        }
        const at::Tensor counts = at::tensor(at::ArrayRef<std::uint8_t>(ordinary.data(), ordinary.size()), at::kByte)
                                      .to(own.device())
                                      .to(at::kDouble);
        if (counts.sum().item<double>() == 0) continue;
        auto& [sum, prompts] = sums[site];
        const at::Tensor mean = counts.matmul(own.to(at::kDouble)) / counts.sum();
        sum = sum.defined() ? sum + mean : mean;
        ++prompts;
      }
    }
  }
  for (const auto& [site, sum] : sums) patch_values_.at(site).copy_(sum.first / static_cast<double>(sum.second));
  if (planned.draws()) resample_patched(of_sets);
}

void StateRun::resample_patched(const std::vector<std::map<dsl::Site, Given>>& readings) {
  const auto& sets = state().source->sets;
  std::size_t first = 0;
  for (std::size_t s = 0; s < sets.size(); first += sets[s++].size()) {
    std::vector<std::size_t> lengths;
    for (const SequenceId prompt : sets[s]) lengths.push_back(c_.plan.sequences[prompt].tokens.size());
    const auto from = resampled_from(lengths, model::mix_seed(c_.seed + state().seed, s));
    for (std::size_t i = 0; i < from.size(); ++i) {
      for (const auto& [site, given] : readings[first + from[i]]) {
        std::vector<std::int64_t> places;
        for (std::size_t position = 0; position < lengths[i]; ++position)
          places.push_back(resampled_position(static_cast<std::int64_t>(position),
                                              static_cast<std::int64_t>(lengths[i]), given.counts));
        const at::Tensor index = at::tensor(places, at::kLong).to(given.values.device());
        patched_[c_.plan.sequences[sets[s][i]].tokens].emplace(site, given.values.index_select(0, index));
      }
    }
  }
}

ReplacementPass::Donors StateRun::donors(std::function<SequenceId(std::size_t)> sequence,
                                         const ReplacementProgram& program) const {
  return [this, sequence = std::move(sequence), &program](std::size_t part, std::size_t row) -> at::Tensor {
    const Sequence& of = c_.plan.sequences[sequence(row)];
    const std::vector<std::int64_t> prompt(of.tokens.begin(), of.tokens.begin() + of.prompt_length);
    const auto found = patched_.find(prompt);
    if (found == patched_.end()) return {};
    const auto at = found->second.find(program.parts()[part].site);
    return at == found->second.end() ? at::Tensor() : at->second;
  };
}

}  // namespace proviso::runtime

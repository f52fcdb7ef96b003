#include <algorithm>
#include <utility>

#include "runtime/model/sinks.hpp"
#include "runtime/state_run.hpp"

namespace proviso::runtime {

void StateRun::read_ablated() {
  const PlannedSource& planned = *state().source;
  std::vector<std::vector<PromptReading>> sets;
  HookProgram program(c_.features, *c_.bound.card);
  std::set<FeaturePlace> places;
  for (const auto& sentence : state().sentences) {
    if (!sentence.of_change) {
      program.add(
          sentence.sentence, sentence.hooks, false, [this](const std::string& text) { return c_.bound.token_id(text); },
          c_.quantile);
      continue;
    }
    for (const auto& site : sentence.hooks) {
      const FeaturePlace place{site, sentence.sentence.feature};
      places.insert(place);
      program.keep_product(place);
      program.record_norm(model::sink_site(site, c_.bound.card->config));
    }
  }
  if (!state().replacements.empty()) add_replacements(program, false);
  program.finish(c_.transformer.options().device);
  if (!planned.donors.empty()) {
    std::vector<const Sequence*> prompts;
    for (const auto& [prompt, donor] : planned.donors) prompts.push_back(&c_.plan.sequences[donor]);
    auto readings = read_prompts(c_.transformer, program, places, prompts);
    std::vector<std::pair<std::vector<std::int64_t>, PromptReading>> donors;
    for (std::size_t i = 0; i < readings.size(); ++i) {
      evidence_.tokens += std::ssize(readings[i].tokens);
      donors.emplace_back(c_.plan.sequences[planned.donors[i].first].tokens, std::move(readings[i]));
    }
    evidence_.sequences += std::ssize(prompts);
    ablation_.emplace(std::move(donors));
    return;
  }
  for (const auto& set : planned.sets) {
    std::vector<const Sequence*> prompts;
    for (const SequenceId id : set) prompts.push_back(&c_.plan.sequences[id]);
    sets.push_back(read_prompts(c_.transformer, program, places, prompts));
    for (const auto& reading : sets.back()) evidence_.tokens += std::ssize(reading.tokens);
    evidence_.sequences += std::ssize(prompts);
  }
  ablation_.emplace(planned.kind, std::move(sets), c_.seed + state().seed);
}

HookPass::Ablated StateRun::ablated(std::function<SequenceId(std::size_t)> sequence) const {
  return [this, sequence = std::move(sequence)](const FeaturePlace& place, std::size_t row, std::int64_t position) {
    const Sequence& of = c_.plan.sequences[sequence(row)];
    return ablation_->at(place, std::span(of.tokens).first(static_cast<std::size_t>(of.prompt_length)), position);
  };
}

}  // namespace proviso::runtime

#include "runtime/attack_search.hpp"

#include <memory>
#include <optional>

#include "runtime/attacks.hpp"
#include "runtime/perturbation_search.hpp"
#include "runtime/suffix_search.hpp"

namespace proviso::runtime {

void AttackSearch::run() {
  const auto& attacks = bound_.rules->checks[of_.first].under_attacks;
  for (std::size_t place = 0; place < attacks.size(); ++place) {
    if (attacks[place].kind != dsl::AttackKind::suffix_search) continue;
    for (auto& [key, prompts] : bound_.attacked) {
      if (key.check == of_.first && key.seed == of_.second) suffixes(key, prompts, place);
    }
  }
  for (std::size_t place = 0; place < attacks.size(); ++place) {
    if (attacks[place].kind != dsl::AttackKind::perturb) continue;
    for (auto& [key, prompts] : bound_.attacked) {
      if (key.check == of_.first && key.seed == of_.second) perturb(key, prompts, place);
    }
  }
}

void AttackSearch::suffixes(const AttackedKey& key, AttackedPrompts& prompts, std::size_t place) {
  const auto& attack = bound_.rules->checks[key.check].under_attacks[place];
  if (!may_take_.defined()) may_take_ = writable_tokens(transformer_, *bound_.tokenizer);
  const auto chat = key.facts ? std::nullopt : bound_.rules->prompts[key.id].chat;
  for (std::size_t i = 0; i < prompts.prompts.size(); ++i) {
    BoundPrompt& prompt = prompts.prompts[i];
    auto& [text, suffix] = prompts.suffixed[i];
    const auto working_on = objective(key, attack, prompt);
    auto found = search_suffix(transformer_, working_on, SuffixPlace(*bound_.tokenizer, chat, text), attack, suffix,
                               may_take_, attack_seed(bound_.seed + key.seed, text, place));
    count(working_on);
    suffix = std::move(found.suffix);
    prompt.text = std::move(found.prompt.text);
    prompt.tokens = std::move(found.prompt.tokens);
    prompts.found[place].push_back(found.nll);
  }
}

void AttackSearch::perturb(const AttackedKey& key, AttackedPrompts& prompts, std::size_t place) {
  const auto& attack = bound_.rules->checks[key.check].under_attacks[place];
  const auto present = bound_.perturbations.find(of_);
  Perturbation perturbation =
      present != bound_.perturbations.end() ? *present->second : Perturbation{perturbed_site(attack), attack.norm, {}};
  for (const auto& prompt : prompts.prompts) {
    auto [known, is_new] = perturbation.prompts.emplace(prompt.tokens, Perturbation::OfPrompt{});
    if (is_new) {
      const auto seed = attack_seed(bound_.seed + key.seed, prompt.text, place);
      known->second.directions = drawn_directions(std::ssize(prompt.tokens), transformer_.config().width, seed);
      if (attack.steps > 0) {
        const auto working_on = objective(key, attack, prompt);
        known->second = search_perturbation(working_on, {prompt.text, prompt.tokens}, attack, known->second.directions);
        count(working_on);
      }
    }
    if (attack.steps > 0) prompts.found[place].push_back(known->second.found);
  }
  bound_.perturbations[of_] = std::make_shared<const Perturbation>(std::move(perturbation));
}

AttackObjective AttackSearch::objective(const AttackedKey& key, const dsl::Attack& attack,
                                        const BoundPrompt& prompt) const {
  AttackTarget target;
  target.toward = attack.toward.has_value();
  target.continuations = prompt.answers;
  if (attack.toward) {
    target.continuations = {bound_.tokenizer->encode(*attack.toward)};
  } else if (key.facts) {
    target.continuations.resize(1);  // what the edit wrote; then what was there before
  }
  return {transformer_, hooks_, conditions_, std::move(target)};
}

void AttackSearch::count(const AttackObjective& objective) {
  sequences_ += objective.sequences();
  tokens_ += objective.tokens();
}

}  // namespace proviso::runtime

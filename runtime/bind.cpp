#include "runtime/bind.hpp"

#include <algorithm>
#include <cstddef>

#include "dsl/metric_traits.hpp"
#include "runtime/binder.hpp"

namespace proviso::runtime {

using dsl::Code;

std::vector<dsl::Site> BoundRules::expand(const std::vector<dsl::SiteSpec>& specs) const {
  std::vector<dsl::Site> sites;
  for (const auto& spec : specs) {
    const auto layers =
        dsl::site_has_layer(spec.kind) ? spec.layers.expand(card->config.layers) : std::vector<std::int64_t>{-1};
    const auto heads = spec.heads ? spec.heads->expand(card->site_heads(spec.kind)) : std::vector<std::int64_t>{-1};
    for (std::int64_t layer : layers) {
      for (std::int64_t head : heads) sites.push_back(dsl::canonical({spec.kind, layer, head}));
    }
  }
  return sites;
}

std::vector<dsl::Site> BoundRules::sites_of(const dsl::Intervention& sentence) const {
  if (!sentence.sites.empty()) return expand(sentence.sites);
  const auto* latent = std::get_if<dsl::Latent>(&rules->features[sentence.feature].constructor);
  return {latent ? autoencoders.at(latent->folder).written : feature_sites[sentence.feature]};
}

std::vector<dsl::Site> BoundRules::possible_sites(dsl::FeatureId id) const {
  const auto selection = selections.find(id);
  if (selection == selections.end() || selection->second.chosen) return {feature_sites[id]};
  return selection->second.candidates;
}

std::int64_t BoundRules::token_id(const std::string& text) const { return tokenizer->encode(text).at(0); }

dsl::Outcome<BoundRules> Binder::run() {
  requirements();
  if (!dsl::has_errors(diagnostics_)) {
    // What is wrong with one declaration says nothing of those that have nothing to do with it. Each has its place in
    // what is bound, bad ones too.
    each_declared(rules_.prompts.size(), bad_.prompts, [&](dsl::PromptsId id, bool sound) {
      bound_.prompts.emplace_back();
      written_.emplace_back();
      if (sound) prompts(rules_.prompts[id]);
    });
    each_declared(rules_.features.size(), bad_.features, [&](dsl::FeatureId id, bool sound) {
      bound_.feature_sites.emplace_back();
      if (sound) feature(rules_.features[id]);
    });
    for (dsl::FeatureId id = 0; id < rules_.features.size(); ++id) {
      if (!bad_.features.contains(id)) construction(rules_.features[id]);
    }
    for (const auto& rule : rules_.rules) {
      for (const auto& sentence : rule.interventions) intervention(sentence);
    }
    each_declared(rules_.edits.size(), bad_.edits, [&](dsl::EditId id, bool sound) {
      bound_.facts.emplace_back();
      if (sound && !needs_bad(rules_.edits[id])) edit(rules_.edits[id]);
    });
    each_declared(rules_.circuits.size(), bad_.circuits, [&](dsl::CircuitId id, bool sound) {
      bound_.circuits.emplace_back();
      if (sound && !needs_bad(rules_.circuits[id])) circuit(rules_.circuits[id]);
    });
    for (dsl::EditId id = 0; id < rules_.edits.size(); ++id) {
      for (const auto& measured : rules_.edits[id].expectations) {
        if (!needs_bad(measured, {id})) expectation(measured, {id}, std::nullopt);
      }
    }
    checks();
  }
  dsl::Outcome<BoundRules> outcome;
  outcome.diagnostics = std::move(diagnostics_);
  if (!dsl::has_errors(outcome.diagnostics)) outcome.value = std::move(bound_);
  return outcome;
}

template <class Bind>
void Binder::each_declared(std::size_t count, std::set<std::size_t>& bad, Bind bind) {
  for (std::size_t id = 0; id < count; ++id) {
    const auto before = static_cast<std::ptrdiff_t>(diagnostics_.size());
    bind(id, !bad.contains(id));
    if (dsl::has_errors({diagnostics_.begin() + before, diagnostics_.end()})) bad.insert(id);
  }
}

void Binder::checks() {
  for (dsl::CheckId id = 0; id < rules_.checks.size(); ++id) {
    const auto& check = rules_.checks[id];
    const auto& attacks = check.under_attacks;
    for (const auto& each : attacks) {
      if (each.layer) site({dsl::SiteKind::resid_post, {false, {{*each.layer, *each.layer}}}, {}, each.span});
    }
    const bool attacked_by_bad = std::ranges::any_of(attacks, [&](const auto& each) { return needs_bad(each); });
    for (const auto& measured : check.expectations) {
      if (attacked_by_bad || needs_bad(measured, check.under_edits)) continue;
      if (!attacks.empty()) attack(id, measured);
      in_circuits(measured, check.under_rules);
      expectation(measured, check.under_edits, attacks.empty() ? std::nullopt : std::optional(id));
    }
  }
}

bool Binder::any_bad(const std::vector<dsl::PromptsId>& sets) const {
  return std::ranges::any_of(sets, [&](dsl::PromptsId set) { return bad_.prompts.contains(set); });
}

bool Binder::needs_bad(const dsl::EditDecl& edit) const {
  return std::any_of(edit.changes.begin(), edit.changes.end(), [&](const auto& change) {
    const auto* remove = std::get_if<dsl::Remove>(&change);
    const auto* erase = std::get_if<dsl::Erase>(&change);
    return (remove && bad_.features.contains(remove->feature)) || (erase && any_bad(erase->sets));
  });
}

bool Binder::needs_bad(const dsl::CircuitDecl& circuit) const {
  return std::ranges::any_of(circuit.pairs, [&](const auto& pair) { return any_bad({pair.clean, pair.corrupt}); });
}

bool Binder::needs_bad(const dsl::Attack& attack) const {
  if (attack.kind == dsl::AttackKind::distractors && bad_.prompts.contains(attack.texts)) return true;
  return any_bad(attack.translations);
}

bool Binder::needs_bad(const dsl::Expectation& expectation, const std::vector<dsl::EditId>& edits) const {
  if (any_bad(measured_sets(expectation))) return true;
  if (const auto* cosine = std::get_if<dsl::metric::Cosine>(&expectation.metric.node)) {
    if (bad_.features.contains(cosine->f) || bad_.features.contains(cosine->g)) return true;
  }
  if (const auto circuit = dsl::measured_circuit(expectation.metric)) {
    if (bad_.circuits.contains(*circuit) || needs_bad(rules_.circuits[*circuit])) return true;
  }
  // What only an edit's facts tell waits for the edit.
  const bool of_facts = std::holds_alternative<dsl::metric::Efficacy>(expectation.metric.node);
  return of_facts && std::ranges::any_of(
                         edits, [&](dsl::EditId id) { return bad_.edits.contains(id) || needs_bad(rules_.edits[id]); });
}

void Binder::error(Code code, dsl::Span span, std::string message, std::vector<std::string> help) {
  diagnostics_.push_back(dsl::make_diagnostic(code, span, std::move(message), std::move(help)));
}

void Binder::requirements() {
  if (!rules_.model) return;
  const auto& need = *rules_.model;
  const auto refuse = [&](const std::string& what, const std::string& asked, const std::string& has) {
    error(Code::wrong_model, need.span,
          "this file is for a model with " + what + " " + asked + "; " + card_.name + " has " + what + " " + has,
          {"audit the model that the file was written for, or change `model { … }`"});
  };
  const std::string family(model::family_name(card_.config.family));
  if (need.family && *need.family != family) refuse("family", *need.family, family);
  if (need.layers && *need.layers != card_.config.layers) {
    refuse("layers", std::to_string(*need.layers), std::to_string(card_.config.layers));
  }
  if (need.width && *need.width != card_.config.width) {
    refuse("width", std::to_string(*need.width), std::to_string(card_.config.width));
  }
  if (need.sha256) {
    const std::string has = card_.sha256(cache_directory_);
    if (*need.sha256 != has) refuse("sha256", *need.sha256, has);
  }
}

dsl::Outcome<BoundRules> bind(std::shared_ptr<const dsl::RuleSet> rules, const model::ModelCard& card,
                              std::shared_ptr<const model::Tokenizer> tokenizer, const std::string& cache_directory,
                              std::uint64_t seed) {
  return Binder(std::move(rules), card, std::move(tokenizer), cache_directory, seed).run();
}

std::vector<dsl::Diagnostic> bind_parts(std::shared_ptr<const dsl::CheckedParts> parts, const model::ModelCard& card,
                                        std::shared_ptr<const model::Tokenizer> tokenizer,
                                        const std::string& cache_directory, std::uint64_t seed) {
  const dsl::Unsound& unsound = parts->unsound;
  std::shared_ptr<const dsl::RuleSet> rules(parts, &parts->rules);
  return Binder(std::move(rules), card, std::move(tokenizer), cache_directory, seed, unsound).run().diagnostics;
}

}  // namespace proviso::runtime

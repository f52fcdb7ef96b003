#include "runtime/bind.hpp"

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

std::int64_t BoundRules::token_id(const std::string& text) const { return tokenizer->encode(text).at(0); }

dsl::Outcome<BoundRules> Binder::run() {
  requirements();
  if (!dsl::has_errors(diagnostics_)) {
    for (const auto& declaration : rules_.prompts) prompts(declaration);
    for (const auto& declaration : rules_.features) feature(declaration);
    if (!dsl::has_errors(diagnostics_)) {
      for (const auto& declaration : rules_.features) construction(declaration);
      for (const auto& rule : rules_.rules) {
        for (const auto& sentence : rule.interventions) intervention(sentence);
      }
      for (const auto& edit : rules_.edits) this->edit(edit);
      for (const auto& circuit : rules_.circuits) this->circuit(circuit);
      for (dsl::CheckId id = 0; id < rules_.checks.size(); ++id) {
        const auto& check = rules_.checks[id];
        for (const auto& each : check.under_attacks) {
          if (each.layer) site({dsl::SiteKind::resid_post, {false, {{*each.layer, *each.layer}}}, {}, each.span});
        }
        for (const auto& measured : check.expectations) {
          if (!check.under_attacks.empty()) attack(id, measured);
          in_circuits(measured, check.under_rules);
          expectation(measured, check.under_edits, check.under_attacks.empty() ? std::nullopt : std::optional(id));
        }
      }
    }
  }
  dsl::Outcome<BoundRules> outcome;
  outcome.diagnostics = std::move(diagnostics_);
  if (!dsl::has_errors(outcome.diagnostics)) outcome.value = std::move(bound_);
  return outcome;
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

}  // namespace proviso::runtime

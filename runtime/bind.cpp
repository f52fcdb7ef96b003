#include "runtime/bind.hpp"

#include <algorithm>
#include <cstddef>

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
    // What is wrong with one declaration says nothing of those that have nothing to do with it.
    const auto bad = [&](const auto& bind) {
      const std::size_t before = diagnostics_.size();
      bind();
      return std::any_of(diagnostics_.begin() + static_cast<std::ptrdiff_t>(before), diagnostics_.end(),
                         [](const dsl::Diagnostic& each) { return each.severity == dsl::Severity::error; });
    };
    for (dsl::PromptsId id = 0; id < rules_.prompts.size(); ++id) {
      if (bad([&] { prompts(rules_.prompts[id]); })) bad_prompts_.insert(id);
    }
    for (dsl::FeatureId id = 0; id < rules_.features.size(); ++id) {
      if (bad([&] { feature(rules_.features[id]); })) bad_features_.insert(id);
    }
    for (dsl::FeatureId id = 0; id < rules_.features.size(); ++id) {
      if (!bad_features_.contains(id)) construction(rules_.features[id]);
    }
    for (const auto& rule : rules_.rules) {
      for (const auto& sentence : rule.interventions) intervention(sentence);
    }
    for (const auto& edit : rules_.edits) {
      if (!needs_bad(edit)) this->edit(edit);
    }
    if (bad_prompts_.empty()) {
      for (const auto& circuit : rules_.circuits) this->circuit(circuit);
    }
    if (bad_prompts_.empty() && bad_features_.empty()) {
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

bool Binder::needs_bad(const dsl::EditDecl& edit) const {
  return std::any_of(edit.changes.begin(), edit.changes.end(), [&](const auto& change) {
    const auto* remove = std::get_if<dsl::Remove>(&change);
    const auto* erase = std::get_if<dsl::Erase>(&change);
    return (remove && bad_features_.contains(remove->feature)) || (erase && !bad_prompts_.empty());
  });
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

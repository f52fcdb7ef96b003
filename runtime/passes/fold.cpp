#include <algorithm>
#include <map>
#include <set>

#include "runtime/condition.hpp"
#include "runtime/model/family.hpp"
#include "runtime/passes/passes.hpp"

namespace proviso::runtime::passes {

namespace {

bool is_written_by_layer(const dsl::Site& site) {
  return site.kind == dsl::SiteKind::attn_out || site.kind == dsl::SiteKind::mlp_out;
}

}  // namespace

bool has_linear_writer(const dsl::Site& site, const model::ModelCard& card) {
  return site.head < 0 && (site.kind == dsl::SiteKind::embed || (is_written_by_layer(site) && !card.norms_writers()));
}

namespace {

/// Whether the feature's 0 may lie elsewhere than the origin at its own site, which only building it tells.
bool may_have_offset(const dsl::FeatureDecl& feature) {
  const auto moved = [](const dsl::ZeroPoint& zero) { return zero.kind != dsl::ZeroPoint::Kind::origin; };
  if (const auto* contrast = std::get_if<dsl::Contrast>(&feature.constructor)) return moved(contrast->zero);
  if (const auto* probe = std::get_if<dsl::Probe>(&feature.constructor)) return moved(probe->zero);
  const auto* stored = std::get_if<dsl::StoredDirection>(&feature.constructor);
  return stored && stored->offset != 0;
}

bool may_add_constant(const dsl::Intervention& sentence, const dsl::Site& site, const BoundRules& bound) {
  const bool offset =
      bound.feature_sites[sentence.feature] == site && may_have_offset(bound.rules->features[sentence.feature]);
  switch (sentence.operation) {
    case dsl::Operation::suppress:
    case dsl::Operation::amplify:
      return offset;
    case dsl::Operation::clamp:
      return offset || sentence.amount != 0;
    case dsl::Operation::steer:
      return sentence.amount != 0;
    case dsl::Operation::cap:
      break;  // never folds
  }
  return false;
}

bool is_latent(dsl::FeatureId feature, const BoundRules& bound) {
  return std::holds_alternative<dsl::Latent>(bound.rules->features[feature].constructor);
}

/// Why this sentence cannot become a weight edit anywhere, or "".
std::string cannot_fold(const dsl::Intervention& sentence, const BoundRules& bound) {
  if (is_latent(sentence.feature, bound)) return "a latent's activation depends on its encoder";
  if (sentence.condition) return "its condition is decided at each token";
  if (sentence.operation == dsl::Operation::cap) return "`cap` depends on the activation";
  return "";
}

}  // namespace

std::string lacks_bias(const dsl::Intervention& sentence, const dsl::Site& site, const BoundRules& bound) {
  const model::FamilyTable& family = model::family_table(bound.card->config.family);
  const bool takes_constant = site.kind == dsl::SiteKind::embed ||  // by every row
                              family.find(site.kind == dsl::SiteKind::attn_out ? model::TensorRole::attention_out_bias
                                                                               : model::TensorRole::down_bias);
  if (takes_constant || !may_add_constant(sentence, site, bound)) return "";
  return "a constant is added at " + dsl::to_string(site) + ", whose map has no bias in models of the family " +
         std::string(family.name);
}

/// A site folds only where every intervention at it folds and nothing else reads there: a read at a site
/// sees no write at it, which a changed weight could not grant.
Plan fold(Plan plan, const BoundRules& bound) {
  for (StateId id = 0; id < plan.states.size(); ++id) {
    ModelState& state = plan.states[id];
    std::set<dsl::Site> read;
    for (const auto& run : plan.runs) {
      if (run.state != id) continue;
      for (const auto& [sequence, wants] : run.wants) {
        for (dsl::FeatureId feature : wants.features) read.insert(bound.feature_sites[feature]);
      }
    }
    std::map<dsl::Site, std::string> kept;  // a site that must stay a hook, and why
    for (const auto& sentence : state.sentences) {
      const std::string why = cannot_fold(sentence.sentence, bound);
      for (const auto& site : sentence.hooks) {
        if (!why.empty()) kept.emplace(site, "another sentence there stays a hook: " + why);
        if (!why.empty() || !has_linear_writer(site, *bound.card)) continue;
        if (const std::string lacking = lacks_bias(sentence.sentence, site, bound); !lacking.empty())
          kept.emplace(site, lacking);
      }
      // A transcoder's latent acts elsewhere than it is read.
      if (is_latent(sentence.sentence.feature, bound)) read.insert(bound.feature_sites[sentence.sentence.feature]);
      if (!sentence.sentence.condition) continue;
      for (dsl::FeatureId feature : dsl::features_read(*sentence.sentence.condition))
        read.insert(bound.feature_sites[feature]);
    }
    for (const auto& site : read) kept.emplace(site, "a feature is read at " + dsl::to_string(site));

    for (auto& sentence : state.sentences) {
      sentence.why = cannot_fold(sentence.sentence, bound);
      if (!sentence.why.empty()) continue;
      if (state.change) {
        sentence.why = "an effect's controls need the change at each token";
        continue;
      }
      std::vector<dsl::Site> hooks;
      for (const auto& site : sentence.hooks) {
        const auto reason = kept.find(site);
        const bool writer = has_linear_writer(site, *bound.card);
        if (writer && reason == kept.end()) {
          sentence.folds.push_back(site);
          continue;
        }
        hooks.push_back(site);
        sentence.why = writer ? reason->second
                       : is_written_by_layer(site)
                           ? "what is written at " + dsl::to_string(site) + " passes a norm before it joins the stream"
                           : dsl::to_string(site) + " is not written by one linear map";
      }
      sentence.hooks = std::move(hooks);
    }
  }
  return plan;
}

}  // namespace proviso::runtime::passes

#include "audit/candidate_feature.hpp"

#include <cctype>

#include "dsl/literals.hpp"

namespace proviso::audit {

namespace {

/// "resid_post[18]" as part of a name: "resid_post_18".
std::string as_name(const dsl::Site& site) {
  std::string name;
  for (const char c : dsl::to_string(site)) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      name += c;
    } else if (!name.empty() && name.back() != '_') {
      name += '_';
    }
  }
  while (name.ends_with('_')) name.pop_back();
  return name;
}

}  // namespace

std::string_view kind_name(FeatureKind kind) {
  constexpr std::string_view kNames[] = {"latent", "neuron", "head", "contrast", "probe"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string CandidateFeature::declaration(const std::string& positive, const std::string& negative,
                                          dsl::TokenChoice::Kind token) const {
  std::string text = "feature " + name + " = ";
  switch (kind) {
    case FeatureKind::latent:
      text += "latent(" + std::to_string(unit) + ", sae: " + dsl::encode_string(folder) + ")";
      break;
    case FeatureKind::neuron:
      text += "neuron(" + std::to_string(unit) + ")";
      break;
    case FeatureKind::head:
    case FeatureKind::contrast:
      text += "contrast(" + positive + ", " + negative + ")";
      break;
    case FeatureKind::probe:
      text += "probe(" + positive + ", " + negative + ")";
      break;
  }
  text += " at " + dsl::to_string(site);
  if (token == dsl::TokenChoice::Kind::all) text += " token all";
  return text;
}

std::vector<CandidateFeature> directions_at(const dsl::Site& site) {
  if (site.head >= 0 && site.kind == dsl::SiteKind::z) {
    return {{FeatureKind::head, "head_" + std::to_string(site.layer) + "_" + std::to_string(site.head), site, 0, ""}};
  }
  return {{FeatureKind::contrast, "contrast_" + as_name(site), site, 0, ""},
          {FeatureKind::probe, "probe_" + as_name(site), site, 0, ""}};
}

CandidateFeature neuron_at(const dsl::Site& site, std::int64_t unit) {
  return {FeatureKind::neuron, "neuron_" + std::to_string(site.layer) + "_" + std::to_string(unit), site, unit, ""};
}

CandidateFeature latent_of(const std::string& folder, std::size_t autoencoder, const dsl::Site& site,
                           std::int64_t unit) {
  const std::string of = autoencoder > 0 ? "_of_" + std::to_string(autoencoder + 1) : "";
  return {FeatureKind::latent, "latent_" + std::to_string(unit) + of, site, unit, folder};
}

}  // namespace proviso::audit

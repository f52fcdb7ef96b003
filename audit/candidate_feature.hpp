#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dsl/rule_set.hpp"
#include "dsl/site.hpp"

namespace proviso::audit {

enum class FeatureKind { latent, neuron, head, contrast, probe };
inline constexpr FeatureKind kFeatureKinds[] = {FeatureKind::latent, FeatureKind::neuron, FeatureKind::head,
                                                FeatureKind::contrast, FeatureKind::probe};
std::string_view kind_name(FeatureKind kind);  ///< "latent"

/// A feature that a search tries, as the language declares it.
struct CandidateFeature {
  FeatureKind kind = FeatureKind::contrast;
  std::string name;       ///< "neuron_9_512", "latent_812", "probe_resid_post_18"
  dsl::Site site;         ///< of a latent where its autoencoder reads
  std::int64_t unit = 0;  ///< of a latent or a neuron
  std::string folder;     ///< of a latent's autoencoder

  /// `feature NAME = …`, built from the sets of these names where it has to be.
  std::string declaration(const std::string& positive, const std::string& negative, dsl::TokenChoice::Kind token) const;
};

/// Directions at a site: of a head, the difference of means; at other sites that and a probe.
std::vector<CandidateFeature> directions_at(const dsl::Site& site);
CandidateFeature neuron_at(const dsl::Site& site, std::int64_t unit);
/// `autoencoder` counts those that are searched, from 0, which parts the names of their latents.
CandidateFeature latent_of(const std::string& folder, std::size_t autoencoder, const dsl::Site& site,
                           std::int64_t unit);

}  // namespace proviso::audit

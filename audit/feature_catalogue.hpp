#pragma once

#include <string>
#include <utility>
#include <vector>

#include "dsl/source.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/features/direction.hpp"

namespace proviso::audit {

/// Features kept as vectors, for rule files that have neither their prompts nor the time to build them.
struct FeatureCatalogue {
  static constexpr const char* kRules = "features.proviso";
  static constexpr const char* kTensors = "features.safetensors";

  std::string rules;    ///< `features.proviso`, in the canonical style: a `direction(…)` for each, with provenance
  std::string tensors;  ///< `features.safetensors`: d [width] float32 by feature name
  std::vector<std::string> written;
  std::vector<std::pair<std::string, std::string>> left_out;  ///< names, and why
};

/// Which program made a catalogue, on which model.
struct CatalogueOrigin {
  std::string program;  ///< "proviso 0.1.0"
  std::string model_sha256;
  std::string cache_directory;  ///< for the hashes of prompt files
};

/// Of the features that the files declare themselves. `directions` are those built, by FeatureId. A latent is left out:
/// what it reads takes an encoder. What a declaration says of itself stays; what is added to its `meta` is `declared`,
/// `built_on`, `source`, `data`, `model` and `program`. Throws `InputError` where two files have a feature of one name.
FeatureCatalogue feature_catalogue(const runtime::BoundRules& bound, const std::vector<runtime::Direction>& directions,
                                   const dsl::SourceSet& sources, const CatalogueOrigin& origin);

}  // namespace proviso::audit

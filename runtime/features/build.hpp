#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "runtime/autoencoders/autoencoder_shelf.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

struct BuildCounts {
  std::int64_t sequences = 0;
  std::int64_t tokens = 0;
};

/// A set of prompts that features are built from: it runs once for all of them, up to the last site that one reads.
struct BuildRun {
  dsl::PromptsId prompts = 0;
  dsl::Site stop_after;
};
std::vector<BuildRun> build_runs(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted);
/// Whether building them needs the model's sink states.
bool needs_sink_states(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted);

/// Builds the features in `wanted` on the model as it is now (as loaded); the others stay undefined.
/// Prompts that several features are built from run once. What only the model can tell is diagnosed:
/// `reads-sink`, `prompt-too-short`, `no-contrast`. How stable a direction is shows in its measures (`stability`).
/// Sites that `select best` leaves open are chosen before (`choose_sites`). What depends on the model alone is kept in
/// `cache_directory`.
dsl::Outcome<std::vector<Direction>> build_features(const model::Transformer& transformer, const BoundRules& bound,
                                                    const std::set<dsl::FeatureId>& wanted,
                                                    AutoencoderShelf& autoencoders, const std::string& cache_directory,
                                                    BuildCounts& counts, const Progress& progress);

}  // namespace proviso::runtime

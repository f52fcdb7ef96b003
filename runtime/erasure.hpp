#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "dsl/rule_set.hpp"
#include "editing/certificate.hpp"
#include "editing/refusal.hpp"
#include "editing/weight_delta.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

struct ErasureSettings {
  double threshold = 0.01;      ///< singular values of the whitened cross-covariance up to it count as noise
  double held_out = 1.0 / 3.0;  ///< of each class, for the probes
  std::uint64_t seed = 0;       ///< of the draw of what is held out
};

struct Erasure {
  std::vector<editing::WeightDelta> deltas;        ///< in the order in which they apply
  std::vector<editing::Certificate> certificates;  ///< one an `erase`; the first has the changes of all
};

/// The sites of `erase`, in the order in which a pass reaches them: those it names, or every linear writer.
std::vector<dsl::Site> erased_sites(const dsl::Erase& erase, const BoundRules& bound);

/// Erases with LEACE what the last tokens of the prompts tell of their classes, site by site, each on the model that
/// the earlier ones leave. Where the sites are all the writers of the stream up to a layer, their sum, the stream after
/// it, tells nothing either: a sum's covariance is the sum of the covariances. Several erasures go through the sites
/// together, one after another at each: what the first has made equal at a site stays so under the affine map of the
/// next, and later sites are fitted on what both have left. The certificates say where it holds, and what probes make
/// of prompts that were not fitted. The model is left as found.
std::variant<Erasure, editing::Refusal> erase_labels(const std::vector<const dsl::Erase*>& erasures,
                                                     const BoundRules& bound, model::Transformer& transformer,
                                                     const ErasureSettings& settings);

}  // namespace proviso::runtime

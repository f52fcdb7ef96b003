#pragma once

#include <set>
#include <string>

#include "dsl/diagnostic.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

/// Whether the site of one of these features is still to be chosen.
bool sites_open(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted);

/// "cross-validation, 5 folds of 60 prompts"
std::string selection_method(const SiteSelection& selection);

/// Chooses the sites of the features in `wanted` that `select best` leaves to the model, as it is loaded; plans are
/// made with what this returns. At each candidate the feature is built and read on held-out prompts: the pair that `on`
/// names, or each fold of the building prompts (clusters never apart) in the units that the other folds give. The site
/// of the largest area under the ROC curve is taken; among equals that of the largest separation, then the earliest. A
/// candidate at which a prompt is read at an attention sink, or whose sides do not differ, is left out; where none is
/// left, `site-choice`.
dsl::Outcome<BoundRules> choose_sites(BoundRules bound, const model::Transformer& transformer,
                                      const std::set<dsl::FeatureId>& wanted, const std::string& cache_directory,
                                      const Progress& progress);

}  // namespace proviso::runtime

#pragma once

#include "runtime/plan.hpp"

namespace proviso::runtime::passes {

/// Whether one linear map writes there, so that what acts everywhere can become a change of it.
bool has_linear_writer(const dsl::Site& site, const model::ModelCard& card);
/// Why a weight edit could not hold what `sentence` does at `site`, which one linear map writes: it adds a constant,
/// and the family has no bias there to hold it. "" where it can.
std::string lacks_bias(const dsl::Intervention& sentence, const dsl::Site& site, const BoundRules& bound);

Plan fold(Plan plan, const BoundRules& bound);
Plan stop_early(Plan plan, const BoundRules& bound);
Plan share_prefixes(Plan plan, const BoundRules& bound);
Plan batch(Plan plan, const BoundRules& bound);

}  // namespace proviso::runtime::passes

#pragma once

#include "runtime/plan.hpp"

namespace proviso::runtime::passes {

/// Whether one linear map writes there, so that what acts everywhere can become a change of it.
bool has_linear_writer(const dsl::Site& site);

Plan fold(Plan plan, const BoundRules& bound);
Plan stop_early(Plan plan, const BoundRules& bound);
Plan share_prefixes(Plan plan, const BoundRules& bound);
Plan batch(Plan plan, const BoundRules& bound);

}  // namespace proviso::runtime::passes

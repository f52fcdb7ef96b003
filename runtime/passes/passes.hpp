#pragma once

#include "runtime/plan.hpp"

namespace proviso::runtime::passes {

Plan fold(Plan plan, const BoundRules& bound);
Plan stop_early(Plan plan, const BoundRules& bound);
Plan share_prefixes(Plan plan, const BoundRules& bound);
Plan batch(Plan plan, const BoundRules& bound);

}  // namespace proviso::runtime::passes

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/bound_rules.hpp"
#include "runtime/plan.hpp"

namespace proviso::runtime {

/// A plan for people and programs: `rules` (each sentence, its sites, whether hook or weight edit and why), `edits`,
/// `states` (the model states with their sequences, passes, tokens and where they stop), `features`,
/// `passes` and `totals`. Needs no weights.
nlohmann::ordered_json explain(const Plan& plan, const BoundRules& bound);

/// The same as text.
std::string explanation_text(const nlohmann::ordered_json& explanation);

}  // namespace proviso::runtime

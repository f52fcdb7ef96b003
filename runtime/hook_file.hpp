#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/bound_rules.hpp"
#include "runtime/condition.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/plan.hpp"

namespace proviso::runtime {

/// The sentences that stay hooks, as a rule file that needs nothing but the file of directions beside it:
/// `hooks.proviso` and `hooks.safetensors`, or nothing where there is no such sentence. Features are the
/// directions as built, with their calibration, and quantiles are numbers, so that the rules mean on the
/// edited model what they meant here.
std::vector<std::pair<std::string, std::string>> hook_file(const std::vector<PlannedSentence>& sentences,
                                                           const std::vector<Direction>& features,
                                                           const BoundRules& bound,
                                                           const ConditionSet::QuantileValue& quantile);

}  // namespace proviso::runtime

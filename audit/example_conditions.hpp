#pragma once

// How near the conditions of a rule come to holding, and to not holding, on its examples.

#include <functional>
#include <set>
#include <span>
#include <vector>

#include "audit/report.hpp"
#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"

namespace proviso::audit {

/// The features that a rule's conditions read.
std::set<dsl::FeatureId> features_read(const dsl::RuleDecl& rule);

/// A feature's activations on a prompt, by position, in the state that the example is run in.
using Readings = std::function<std::span<const float>(const runtime::BoundPrompt&, dsl::FeatureId)>;
using QuantileValue = std::function<double(const dsl::Quantile&)>;

/// Each comparison of the rule's conditions, once, in order of appearance; one behind `not` is turned round, so that
/// more is always nearer to firing. Where the rule is to fire, the prompt that it comes least far over the threshold
/// on; where it is to stay silent, the one that it comes farthest on; and all prompts. Position 0 is left out, and so
/// are prompts of one token.
std::vector<ConditionResult> condition_results(const dsl::RuleDecl& rule, const dsl::RuleSet& rules, bool must_fire,
                                               const std::vector<const runtime::BoundPrompt*>& prompts,
                                               const Readings& readings, const QuantileValue& quantile);

}  // namespace proviso::audit

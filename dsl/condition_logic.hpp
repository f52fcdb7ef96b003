#pragma once

// What can be said of conditions before there is a model: which can never hold, always hold, or exclude each other.
//
// A condition is put into disjunctive form; each conjunction of it is a set of literals over intervals of positions,
// an order of activations, numbers and quantiles, tokens, and the prompt. Every answer is sound: "can hold" is also
// said of what is too large to be looked into, and of what only a model could tell (whether two features go together).
// Activations are taken to be numbers: a NaN makes an audit's verdict an error.

#include <functional>
#include <vector>

#include "dsl/rule_set.hpp"

namespace proviso::dsl {

/// Calls `see` for the condition and for everything within it, from the outside in.
void each_condition(const Condition& condition, const std::function<void(const Condition&)>& see);

/// What holds of two numbers where `op` does not: `>=` of `<`.
Compare complement(Compare op);

/// Features that a condition reads, in order of appearance, once each.
std::vector<FeatureId> features_read(const Condition& condition);

/// Whether all of these can hold at one position, position 0 left out where one of them reads a feature: there no
/// condition holds that does. (Each is as a sentence has it behind `when`, not a part of one.)
bool can_hold(const std::vector<const Condition*>& together);
inline bool can_hold(const Condition& condition) { return can_hold({&condition}); }

/// Whether a condition can hold at a token of the prompt: what examples are run on.
bool can_hold_on_prompt(const Condition& condition);

/// Whether a condition holds wherever it can be asked: everywhere, or everywhere but at position 0.
bool always_holds(const Condition& condition);

/// Whether `a` holds nowhere that `b` does not. Null is a sentence without a condition, which acts everywhere.
bool implies(const Condition* a, const Condition* b);

/// Whether prompts and activations are to be expected at which both hold, whatever the model: one implies the other and
/// can hold, or positions and the values of one feature alone decide them, leave more than a single value, and the
/// feature takes `every_value` (a latent does not).
bool must_meet(const Condition* a, const Condition* b, const std::function<bool(FeatureId)>& every_value);

}  // namespace proviso::dsl

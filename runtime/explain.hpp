#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/bound_rules.hpp"
#include "runtime/plan.hpp"
#include "runtime/session.hpp"

namespace proviso::runtime {

/// ‖Δx‖/‖x‖ at the first position by site, for a sentence (its rule's name, its text) that acts there.
using FirstPositionChanges = std::map<std::pair<std::string, std::string>, std::map<dsl::Site, double>>;

/// What the plan's unconditional sentences do at the first position, the attention sink: measured on the first tokens
/// of the plan's sequences, the mean over them, on the model without the edits that stand beside them. The features
/// that it needs are `first_position_features`, and are built.
FirstPositionChanges first_position_changes(Session& session, const Plan& plan);
std::set<dsl::FeatureId> first_position_features(const Plan& plan);

/// A plan for people and programs: `rules` (each sentence, its sites, whether hook or weight edit and why), `edits`,
/// `searches` (attacks that search on the model before the rest), `states` (the model states with their sequences,
/// passes, tokens, cost and where they stop), `features`, `building` (what is read to build and calibrate them, and for
/// quantiles), `passes` and `totals`. A sentence's `cost` is that of its hooks; what a change of it would save stands
/// beside it. Costs of generation are those of texts that go on to their last token. Not counted are solving edits,
/// finding circuits and searching attacks.
nlohmann::ordered_json explain(const Plan& plan, const BoundRules& bound, const FirstPositionChanges& changes);

std::string flops_text(double flops);  ///< "3.2 GFLOP"
/// Of an entry of `rules`: "4.6 kFLOP a token (0.002% of …); it is in force on 96 tokens of prompts".
std::string sentence_cost_text(const nlohmann::ordered_json& rule);
/// Of an entry of `building`: "angry: 60 sequences, 702 tokens up to resid_post[18], 1.2 GFLOP".
std::string building_text(const nlohmann::ordered_json& building);
/// Of an entry of `states`: "24 texts generated: at most 980 tokens, their prompts included, and 3.2 GFLOP".
std::string generation_text(const nlohmann::ordered_json& state);
/// Of `totals`: "3.2 GFLOP, 1.2 GFLOP to build features, at most 5 GFLOP to generate texts".
std::string costs_text(const nlohmann::ordered_json& totals);

/// The same as text; `more` is put in before the model states.
std::string explanation_text(const nlohmann::ordered_json& explanation, const std::string& more = "");

}  // namespace proviso::runtime

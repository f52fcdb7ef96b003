#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "audit/audit.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/explain.hpp"

namespace proviso::audit {

/// What an audit by these rules is: what `runtime::explain` tells of its plan, and `checks` (the tokens that each would
/// compute alone, and how many prompts its thresholds need) and `sharing` (which checks have tokens in common, the most
/// first). `plan` is `plan_audit`'s.
nlohmann::ordered_json explain(const runtime::Plan& plan, const runtime::BoundRules& bound, const AuditOptions& options,
                               const runtime::FirstPositionChanges& changes);

std::string explanation_text(const nlohmann::ordered_json& explanation);
/// One HTML page that needs nothing else, no script either.
std::string explanation_html(const nlohmann::ordered_json& explanation);

}  // namespace proviso::audit

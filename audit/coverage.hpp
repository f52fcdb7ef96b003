#pragma once

#include "audit/audit.hpp"
#include "audit/report.hpp"
#include "dsl/rule_set.hpp"

namespace proviso::audit {

/// What the examples of a report cover of the rules that were selected: a rule by examples of both kinds; a branch (a
/// sentence with a condition, an alternative of its `or`, a comparison in it) where it held in some example.
Coverage coverage(const dsl::RuleSet& rules, const Report& report, const Selection& selection);

}  // namespace proviso::audit

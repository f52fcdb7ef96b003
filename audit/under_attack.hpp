#pragma once

// What attacks did beside changing the metric: what they found, and what became of the rules under test.

#include <cstdint>
#include <vector>

#include "audit/evidence_source.hpp"
#include "audit/metrics.hpp"
#include "audit/report.hpp"
#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/plan.hpp"

namespace proviso::audit {

/// Of each attack of the check that searches; `measured` is the metric under them.
std::vector<SearchResult> searched(const dsl::CheckDecl& check, const Values& measured,
                                   const runtime::BoundRules& bound);

struct RulesUnderAttack {
  std::vector<FeatureMove> moved;
  std::optional<Evaded> evaded;
};

/// The rules in force in `state`, on the prompts of `measured` as written, against those of `attacked`, the same under
/// attack. A rule evades on a prompt where no condition of any of them holds under attack, one does without it, and the
/// metric says yes of the attacked prompt: only shares of prompts do. Asks `source` for all that it needs, and reads
/// it.
RulesUnderAttack rules_under_attack(const dsl::Metric& metric, const Values& measured, runtime::StateId state,
                                    runtime::StateId attacked, const runtime::BoundRules& bound,
                                    const runtime::PlanBuilder& builder, EvidenceSource& source);

}  // namespace proviso::audit

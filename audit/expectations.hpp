#pragma once

#include <optional>
#include <string>
#include <vector>

#include "audit/evidence_source.hpp"
#include "audit/metrics.hpp"
#include "audit/report.hpp"
#include "runtime/plan.hpp"
#include "runtime/session.hpp"

namespace proviso::audit {

inline constexpr std::size_t kEvidenceShown = 5;

/// What an expectation is measured under.
struct Under {
  std::vector<dsl::EditId> edits;
  std::vector<dsl::RuleId> rules;
  std::optional<dsl::CheckId> attacks;  ///< the check whose attacks are in force
  /// The edit whose facts and whose change are meant, where others are in force beside it.
  std::optional<dsl::EditId> of{};
  bool as_written = false;  ///< in the file's types, of a metric that is no effect
  bool empty() const { return edits.empty() && rules.empty() && !attacks; }
};

/// An expectation's numbers, before the audit's effects have been corrected together: one part for each combination
/// that `across` asks for, else one.
struct Measured {
  struct Part {
    std::string combination;   ///< "seed 1, as written"
    ExpectationResult result;  ///< without its status, unless `settled`
    bool settled = false;      ///< vacuous or an error, whatever the number
  };
  const dsl::Expectation* expectation = nullptr;
  std::vector<Part> parts;
};

/// Puts everything that an expectation needs into a plan.
void ask(const dsl::Expectation& expectation, const Under& under, const runtime::BoundRules& bound,
         runtime::PlanBuilder& builder, EvidenceSource& source);

struct ReadContext {
  const dsl::Expectation& expectation;
  const Under& under;
  const runtime::BoundRules& bound;
  runtime::PlanBuilder& builder;  ///< the plan's own: it knows the states by what they are
  const runtime::Plan& plan;
  const runtime::Evidence& evidence;
  runtime::Session& session;
  ReadingSource& source;
  std::uint64_t seed = 0;
};

/// Reads the numbers from what was seen.
Measured read(const ReadContext& context);

/// Holm's correction over the p-values of all controls, those of every combination included.
void correct(std::vector<Measured>& measured);

/// Compares with the bound, every combination by itself.
ExpectationResult judge(const Measured& measured);

}  // namespace proviso::audit

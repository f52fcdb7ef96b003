#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "audit/report.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/plan.hpp"
#include "runtime/session.hpp"

namespace proviso::audit {

/// Which of a file's checks, edits and examples are measured.
struct Selection {
  bool checks = true, edits = true, examples = true;
  std::string only;  ///< "" for all, a name, or "tag:T"

  bool takes(const dsl::Declared& declared) const;
};

/// The model that edits are measured on together: the one that `apply` writes, or a part of the way there.
struct Together {
  std::vector<dsl::EditId> edits;  ///< in order
  std::vector<dsl::RuleId> rules;
  bool as_written = false;  ///< with what `Session::write_as` was told
};

struct AuditOptions {
  Selection selection;
  std::optional<Together> together{};          ///< nothing: each edit by itself
  dsl::Date as_of;                             ///< for waivers
  std::set<std::string> passes_off;            ///< plan passes by name
  std::set<std::string> left_out{};            ///< checks by name, of those that the selection takes
  bool minimality = false, stability = false;  ///< of circuits, also where no expectation asks
  bool every_margin = false;  ///< of examples: what conditions read on each prompt, not on the nearest alone
};

/// What an audit would do, without weights.
runtime::Plan plan_audit(const runtime::BoundRules& bound, const AuditOptions& options);

/// Carries an audit out in a session of these rules, which keeps the features and the edits that it made.
/// Diagnostics are what only the model could tell (`reads-sink`, …); then there is no report. `run.seconds`,
/// `run.device` and `run.threads` and the model's hash are the caller's to fill in.
dsl::Outcome<Report> audit(runtime::Session& session, const runtime::BoundRules& bound, const dsl::SourceSet& sources,
                           const AuditOptions& options);

/// Finds the files' circuits that the selection takes, in a session of these rules, and measures them.
std::vector<CircuitResult> trace(runtime::Session& session, const runtime::BoundRules& bound,
                                 const dsl::SourceSet& sources, const AuditOptions& options);

}  // namespace proviso::audit

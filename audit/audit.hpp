#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "audit/report.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/plan.hpp"
#include "runtime/progress.hpp"

namespace proviso::audit {

/// Which of a file's checks, edits and examples are measured.
struct Selection {
  bool checks = true, edits = true, examples = true;
  std::string only;  ///< "" for all, a name, or "tag:T"

  bool takes(const dsl::Declared& declared) const;
};

struct AuditOptions {
  Selection selection;
  std::uint64_t seed = 0;
  dsl::Date as_of;                   ///< for waivers
  std::set<std::string> passes_off;  ///< plan passes by name
  std::string cache_directory;
  std::string corpus_path;    ///< text for second moments where an edit names none
  std::string held_out_path;  ///< text that no edit sees: what edits cost is measured on it
  runtime::Progress progress;
};

/// What an audit would do, without weights.
runtime::Plan plan_audit(const runtime::BoundRules& bound, const AuditOptions& options);

/// Carries an audit out. Diagnostics are what only the model could tell (`reads-sink`, …); then there is
/// no report. `run.seconds`, `run.device` and `run.threads` and the model's hash are the caller's to fill in.
dsl::Outcome<Report> audit(model::Transformer& transformer, const runtime::BoundRules& bound,
                           const dsl::SourceSet& sources, const AuditOptions& options);

}  // namespace proviso::audit

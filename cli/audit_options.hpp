#pragma once

#include <string>

#include "audit/audit.hpp"
#include "cli/models.hpp"

namespace proviso::cli {

/// What the common options say to an audit; as of today (UTC).
audit::AuditOptions audit_options(const Invocation& invocation);

/// Fills in what only the program knows: its version, the selection, the model's hash and dtype, device and threads.
void complete(audit::Report& report, const Invocation& invocation, const ModelFiles& files,
              const audit::Selection& selection);

/// "2027-03-31". Throws `InputError` where that is no day.
dsl::Date parse_date(const std::string& text);

/// Throws `InputError` where nothing would be run, which would pass: the files hold nothing, or, with the nearest name,
/// `--only` takes nothing of it.
void check_selection(const dsl::RuleSet& rules, const audit::Selection& selection);

}  // namespace proviso::cli

#pragma once

#include <string>

#include "audit/audit.hpp"
#include "cli/models.hpp"

namespace proviso::cli {

/// What the common options say to an audit; as of today (UTC).
audit::AuditOptions audit_options(const Invocation& invocation);

/// Fills in what only the program knows: its version, the model's hash and dtype, device and threads.
void complete(audit::Report& report, const Invocation& invocation, const ModelFiles& files);

/// "2027-03-31". Throws `InputError` where that is no day.
dsl::Date parse_date(const std::string& text);

/// Throws `InputError` where there is nothing to audit, or, with the nearest name, where `--only` takes nothing.
void check_selection(const dsl::RuleSet& rules, const audit::Selection& selection);

}  // namespace proviso::cli

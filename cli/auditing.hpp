#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "audit/audit.hpp"
#include "audit/report.hpp"
#include "cli/models.hpp"

namespace proviso::cli {

/// What the common options say to an audit; as of today (UTC).
audit::AuditOptions audit_options(const Invocation& invocation);
/// What they say to its session, in which what edits cost is measured.
runtime::SessionOptions audit_session_options(const Invocation& invocation, const BoundFiles& opened);

/// "2027-03-31". Throws `InputError` where that is no day.
dsl::Date parse_date(const std::string& text);

/// `--evidence`; `form` must live as long as the command.
void add_evidence_option(CLI::App& command, audit::EvidenceForm& form);

/// Refuses a report file that could not be written, before the model is loaded; "" and "-" are standard output.
void require_writable_report(const std::string& path);

/// To a file, with a summary and then `note` for people; or to standard output in the format that `--output` asks for,
/// else `usual`, where text is that summary.
void write_report(const Invocation& invocation, const std::string& path, const audit::Report& report,
                  const audit::RenderOptions& render, OutputFormat usual, const std::string& note);

struct Audited {
  std::unique_ptr<BoundFiles> opened;
  std::optional<audit::Report> report;  ///< nothing where diagnostics, which are printed, stopped it
};
/// Audits the model by the rule files: the report holds all but the time that it took. Throws `InputError` where
/// nothing would be run, which would pass: the files hold nothing, or, with the nearest name, `--only` takes nothing of
/// it.
Audited audit_files(const Invocation& invocation, const std::vector<std::string>& files, SharedModel& model,
                    const audit::AuditOptions& wanted);

}  // namespace proviso::cli

#include "audit/audit.hpp"

#include <chrono>
#include <map>
#include <memory>

#include "audit/report.hpp"
#include "audit/verdict.hpp"
#include "cli/auditing.hpp"
#include "cli/files.hpp"
#include "cli/models.hpp"

namespace proviso::cli {

namespace {

struct Options {
  std::vector<std::string> files;
  std::string model, output, baseline, as_of, only;
  dsl::CheckSeverity fail_on = dsl::CheckSeverity::info;
  audit::RenderOptions render;
};

/// What the exit code says, where options make it say something else than the verdict.
std::string gate(const Options& options, const audit::Report& report, int code) {
  if (options.baseline.empty() && options.fail_on == dsl::CheckSeverity::info) return "";
  if (report.verdict() == audit::Status::error) return "gate: fails: the verdict is error, which no option covers\n";
  std::string line = code == kDone ? "gate: passes; it fails only where " : "gate: fails: ";
  line += options.baseline.empty() ? "something does not pass" : "something got worse than in " + options.baseline;
  if (options.fail_on != dsl::CheckSeverity::info) {
    line += ", of severity " + std::string(dsl::severity_name(options.fail_on)) + " or higher";
  }
  return line + "\n";
}

int run_audit(const Invocation& invocation, const Options& options) {
  const auto started = std::chrono::steady_clock::now();
  // Everything that can be refused is refused before the model is loaded.
  std::optional<audit::Report> baseline;
  if (!options.baseline.empty()) baseline = audit::from_yaml(read_text(invocation, options.baseline), options.baseline);
  audit::AuditOptions wanted = audit_options(invocation);
  if (!options.as_of.empty()) wanted.as_of = parse_date(options.as_of);
  wanted.selection.only = options.only;
  require_writable_report(options.output);

  SharedModel model(invocation, options.model);
  auto audited = audit_files(invocation, options.files, model, wanted);
  if (!audited.report) return kInputAtFault;
  audit::Report& report = *audited.report;
  report.run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();

  const int code = audit::exit_code(report, options.fail_on, baseline ? &*baseline : nullptr);
  write_report(invocation, options.output, report, options.render, OutputFormat::yaml, gate(options, report, code));
  return code;
}

}  // namespace

void register_audit(CLI::App& program, Invocation& invocation) {
  CLI::App* command =
      program.add_subcommand("audit", "Run every check, edit expectation and example, and write the report");
  auto options = std::make_shared<Options>();
  add_rule_files(*command, options->files);
  add_model_option(*command, options->model);
  command->add_option("-o", options->output, "write the report here and print a summary; `-` is standard output")
      ->check(kNotEmpty)
      ->type_name("REPORT");
  static const std::map<std::string, dsl::CheckSeverity> severities = {{"info", dsl::CheckSeverity::info},
                                                                       {"minor", dsl::CheckSeverity::minor},
                                                                       {"major", dsl::CheckSeverity::major},
                                                                       {"critical", dsl::CheckSeverity::critical}};
  command
      ->add_option_function<std::string>(
          "--fail-on", [options](const std::string& name) { options->fail_on = severities.at(name); },
          "exit with 1 only for findings of this severity or a higher one")
      ->check(CLI::IsMember({"info", "minor", "major", "critical"}))
      ->type_name("SEVERITY");
  command->add_option("--only", options->only, "only what bears this name, or this tag: `tag:T`")
      ->check(kNotEmpty)
      ->type_name("NAME");
  command->add_option("--baseline", options->baseline, "an earlier report: only what got worse fails")
      ->check(kNotEmpty)
      ->type_name("REPORT");
  command->add_option("--as-of", options->as_of, "the day for waivers, YYYY-MM-DD; today (UTC) unless told")
      ->check(kNotEmpty)
      ->type_name("DATE");
  add_evidence_option(*command, options->render.evidence);
  command->add_flag("--reproducible", options->render.reproducible,
                    "leave out of the report what two equal runs may differ in");
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return run_audit(invocation, *options); };
  });
}

}  // namespace proviso::cli

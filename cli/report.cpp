#include "audit/report.hpp"

#include <memory>
#include <ostream>

#include "audit/report_diff.hpp"
#include "audit/report_merge.hpp"
#include "cli/auditing.hpp"
#include "cli/files.hpp"
#include "cli/output.hpp"
#include "runtime/formats/sha256.hpp"

namespace proviso::cli {

namespace {

audit::ReportFile read_report(const Invocation& invocation, const std::string& path) {
  const std::string text = read_text(invocation, path);
  return {path, model::sha256_hex(std::as_bytes(std::span(text))), audit::from_yaml(text, path)};
}

void add_output(CLI::App& command, std::string& output) {
  command.add_option("-o", output, "the file to write; `-` (the default) is standard output")
      ->check(kNotEmpty)
      ->type_name("FILE");
}

Terminal seen_at(const Invocation& invocation, const std::string& output) {
  return output == "-" ? terminal(invocation.out) : Terminal{};
}

std::string shown(const Invocation& invocation, const audit::Report& report, const Terminal& seen) {
  switch (invocation.options.output.value_or(OutputFormat::text)) {
    case OutputFormat::text:
      return audit::to_text(report, seen.columns, seen.colour);
    case OutputFormat::yaml:
      return audit::to_yaml(report, {});
    case OutputFormat::json:
      return audit::to_json(report, {});
    case OutputFormat::junit:
    case OutputFormat::html:
    case OutputFormat::dot:
      break;  // `report junit` and `report html`
  }
  return "";
}

/// What a rendering holds of the prompts and generated texts.
enum class Prompts { shown, never };

/// `report NAME REPORT`: reads a report and prints what `render` makes of it, or writes it where `-o` says.
template <class Render>
CLI::App* add_rendering(CLI::App& report, Invocation& invocation, const char* name, const char* what, Prompts prompts,
                        Render render) {
  CLI::App* command = report.add_subcommand(name, what);
  struct Options {
    std::string path, output = "-";
    audit::EvidenceForm evidence = audit::EvidenceForm::full;
  };
  auto options = std::make_shared<Options>();
  command->add_option("REPORT", options->path, "a report in YAML; `-` is standard input")->required();
  add_output(*command, options->output);
  if (prompts == Prompts::shown) add_evidence_option(*command, options->evidence);
  add_common_options(*command, invocation.options);
  command->callback([options, render, &invocation] {
    invocation.action = [options, render, &invocation] {
      audit::ReportFile read = read_report(invocation, options->path);
      read.report = audit::redacted(std::move(read.report), options->evidence);
      write_result(invocation, options->output, render(read, seen_at(invocation, options->output)));
      return kDone;
    };
  });
  return command;
}

void add_diff(CLI::App& report, Invocation& invocation) {
  CLI::App* command =
      report.add_subcommand("diff", "Compare two reports; exit with 1 where something got worse, beyond noise");
  struct Options {
    std::string before, after, output = "-";
  };
  auto options = std::make_shared<Options>();
  command->add_option("OLD", options->before, "the earlier report")->required();
  command->add_option("NEW", options->after, "the later report")->required();
  add_output(*command, options->output);
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation]() -> int {
      const auto before = read_report(invocation, options->before), after = read_report(invocation, options->after);
      const audit::ReportDiff diff = audit::diff(before.report, before.path, after.report, after.path);
      const Terminal seen = seen_at(invocation, options->output);
      const OutputFormat format = invocation.options.output.value_or(OutputFormat::text);
      write_result(invocation, options->output,
                   format == OutputFormat::text ? audit::to_text(diff, seen.columns, seen.colour)
                                                : render_document(audit::tree_of(diff), format));
      return diff.count(audit::Trend::worse) > 0 ? kFailed : kDone;
    };
  });
}

void add_merge(CLI::App& report, Invocation& invocation) {
  CLI::App* command = report.add_subcommand("merge", "Join the reports of an audit that was run in parts");
  struct Options {
    std::vector<std::string> paths;
    std::string output = "-";
  };
  auto options = std::make_shared<Options>();
  command->add_option("REPORT", options->paths, "reports of one model, program version, date and seed")->required();
  add_output(*command, options->output);
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] {
      std::vector<audit::ReportFile> parts;
      for (const std::string& path : options->paths) parts.push_back(read_report(invocation, path));
      const audit::Report whole = audit::merged(parts);
      const bool json = invocation.options.output == OutputFormat::json;
      write_result(invocation, options->output, json ? audit::to_json(whole, {}) : audit::to_yaml(whole, {}));
      return kDone;
    };
  });
}

}  // namespace

void register_report(CLI::App& program, Invocation& invocation) {
  using audit::ReportFile;
  CLI::App* report = program.add_subcommand("report", "Render, compare and join reports that `proviso audit` wrote");
  report->require_subcommand(1);
  add_rendering(
      *report, invocation, "show", "Print a report for people", Prompts::shown,
      [&invocation](const ReportFile& read, const Terminal& seen) { return shown(invocation, read.report, seen); });
  add_rendering(*report, invocation, "html", "Turn a report into one HTML page that needs nothing else", Prompts::shown,
                [](const ReportFile& read, const Terminal&) { return audit::to_html(read.report); });
  add_rendering(*report, invocation, "markdown", "Turn a report into GitHub's Markdown, for a pull request",
                Prompts::shown,
                [](const ReportFile& read, const Terminal&) { return audit::to_markdown(read.report); });
  add_rendering(*report, invocation, "annex-iv",
                "Draft the technical documentation of the EU AI Act's Annex IV from a report", Prompts::never,
                [](const ReportFile& read, const Terminal&) { return audit::to_annex_iv(read.report); });
  const auto locations = std::make_shared<bool>(false), problems_only = std::make_shared<bool>(false);
  add_rendering(
      *report, invocation, "junit", "Turn a report into JUnit XML, for CI systems", Prompts::never,
      [locations](const ReportFile& read, const Terminal&) { return audit::to_junit(read.report, *locations); })
      ->add_flag("--locations", *locations,
                 "add file and line to test cases, for readers that link by them; Jenkins' schema knows neither");
  add_rendering(
      *report, invocation, "sarif", "Turn a report into SARIF 2.1.0, for code scanning", Prompts::never,
      [problems_only](const ReportFile& read, const Terminal&) { return audit::to_sarif(read.report, *problems_only); })
      ->add_flag("--problems-only", *problems_only,
                 "leave out what passes, is waived or is experimental, for readers that would show it as alerts");
  add_rendering(*report, invocation, "attestation",
                "State a report's verdict on its model, to be signed by in-toto's tools", Prompts::never,
                [](const ReportFile& read, const Terminal&) {
                  return audit::to_attestation(read.report, read.path, read.sha256);
                });
  add_diff(*report, invocation);
  add_merge(*report, invocation);
}

}  // namespace proviso::cli

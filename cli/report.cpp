#include "audit/report.hpp"

#include <memory>
#include <ostream>

#include "cli/files.hpp"
#include "cli/output.hpp"

namespace proviso::cli {

namespace {

std::string shown(const Invocation& invocation, const audit::Report& report, const Terminal& seen) {
  switch (invocation.options.output.value_or(OutputFormat::text)) {
    case OutputFormat::text:
      return audit::to_text(report, seen.columns, seen.colour);
    case OutputFormat::yaml:
      return audit::to_yaml(report, {});
    case OutputFormat::json:
      return audit::to_json(report, {});
  }
  return "";
}

/// `report NAME REPORT`: reads a report and prints what `render` makes of it, or writes it where `-o` says.
template <class Render>
void add_rendering(CLI::App& report, Invocation& invocation, const char* name, const char* what, Render render) {
  CLI::App* command = report.add_subcommand(name, what);
  struct Options {
    std::string path, output = "-";
  };
  auto options = std::make_shared<Options>();
  command->add_option("REPORT", options->path, "a report in YAML; `-` is standard input")->required();
  command->add_option("-o", options->output, "the file to write; `-` (the default) is standard output")
      ->check(kNotEmpty)
      ->type_name("FILE");
  add_common_options(*command, invocation.options);
  command->callback([options, render, &invocation] {
    invocation.action = [options, render, &invocation] {
      const auto read = audit::from_yaml(read_text(invocation, options->path), options->path);
      const bool to_file = options->output != "-";
      write_result(invocation, options->output, render(read, to_file ? Terminal{} : terminal(invocation.out)));
      return kDone;
    };
  });
}

}  // namespace

void register_report(CLI::App& program, Invocation& invocation) {
  CLI::App* report = program.add_subcommand("report", "Read reports that `proviso audit` wrote");
  report->require_subcommand(1);
  add_rendering(
      *report, invocation, "show", "Print a report for people",
      [&invocation](const audit::Report& read, const Terminal& seen) { return shown(invocation, read, seen); });
  add_rendering(*report, invocation, "junit", "Turn a report into JUnit XML, for CI systems",
                [](const audit::Report& read, const Terminal&) { return audit::to_junit(read); });
  add_rendering(*report, invocation, "sarif", "Turn a report into SARIF 2.1.0, for code scanning",
                [](const audit::Report& read, const Terminal&) { return audit::to_sarif(read); });
}

}  // namespace proviso::cli

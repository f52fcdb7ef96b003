#include "audit/report.hpp"

#include <memory>
#include <ostream>

#include "cli/files.hpp"
#include "cli/output.hpp"

namespace proviso::cli {

void register_report(CLI::App& program, Invocation& invocation) {
  CLI::App* report = program.add_subcommand("report", "Read reports that `proviso audit` wrote");
  report->require_subcommand(1);

  CLI::App* show = report->add_subcommand("show", "Print a report for people");
  auto path = std::make_shared<std::string>();
  show->add_option("REPORT", *path, "a report in YAML; `-` is standard input")->required();
  add_common_options(*show, invocation.options);
  show->callback([path, &invocation] {
    invocation.action = [path, &invocation] {
      const audit::Report read = audit::from_yaml(read_text(invocation, *path), *path);
      const OutputFormat format = invocation.options.output.value_or(OutputFormat::text);
      if (format == OutputFormat::json) {
        throw model::InputError("`report show` prints text or yaml\n  help: leave --output json out");
      }
      const Terminal seen = terminal(invocation);
      invocation.out << (format == OutputFormat::yaml ? audit::to_yaml(read, {})
                                                      : audit::to_text(read, seen.columns, seen.colour));
      return kDone;
    };
  });
}

}  // namespace proviso::cli

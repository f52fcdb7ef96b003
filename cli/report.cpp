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
      const Terminal seen = terminal(invocation.out);
      switch (invocation.options.output.value_or(OutputFormat::text)) {
        case OutputFormat::text:
          invocation.out << audit::to_text(read, seen.columns, seen.colour);
          break;
        case OutputFormat::yaml:
          invocation.out << audit::to_yaml(read, {});
          break;
        case OutputFormat::json:
          invocation.out << audit::to_json(read, {});
          break;
      }
      return kDone;
    };
  });
}

}  // namespace proviso::cli

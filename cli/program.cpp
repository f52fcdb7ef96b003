#include "cli/program.hpp"

#include <algorithm>
#include <ostream>

#include "cli/log.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::cli {

namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 done, and everything passed; 1 something failed or is inconclusive; 2 the input is at fault "
    "(a rule file, a model, an option); 3 the machine is at fault (disk full, out of memory).\n"
    "`proviso COMMAND --help` tells what a command takes.";

}  // namespace

void register_commands(CLI::App& program, Invocation& invocation) {
#define PROVISO_COMMAND(name) register_##name(program, invocation);
#include "cli/commands.def"
#undef PROVISO_COMMAND
}

int run(std::vector<std::string> arguments, std::istream& in, std::ostream& out, std::ostream& err) {
  Invocation invocation{in, out, err, {}, {}};
  CLI::App program("Edits language models and audits them by rule files.", "proviso");
  program.set_version_flag("--version", "proviso " PROVISO_VERSION, "print the version");
  program.require_subcommand(1);
  program.footer(kExitCodes);

  const auto finished = [&out](int code) {
    if (!out.flush()) throw model::MachineError("standard output cannot be written: is the disk full?");
    return code;
  };
  return guarded(
      [&]() -> int {
        register_commands(program, invocation);
        std::reverse(arguments.begin(), arguments.end());  // the order in which CLI11 takes a vector
        try {
          program.parse(std::move(arguments));
        } catch (const CLI::ParseError& error) {
          if (error.get_exit_code() == 0) {
            program.exit(error, out, err);  // --help, --version
            return finished(kDone);
          }
          err << usage_message(program, error);
          return kInputAtFault;
        }
        set_log_level(invocation.options.quiet, invocation.options.verbose);
        return finished(invocation.action());
      },
      err);
}

}  // namespace proviso::cli

#include <memory>
#include <ostream>

#include "cli/command.hpp"
#include "editing/ledger.hpp"

namespace proviso::cli {

void register_revert(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("revert", "Undo what `apply` did, to the byte");
  struct Options {
    std::string directory, destination;
  };
  auto options = std::make_shared<Options>();
  command->add_option("DIR", options->directory, "what `proviso apply` wrote: a folder, or a GGUF file")
      ->check(kNotEmpty)
      ->required();
  command
      ->add_option(
          "-o", options->destination,
          "where the model as it was is written: a folder, or a GGUF file where DIR is one; what exists is never "
          "overwritten")
      ->check(kNotEmpty)
      ->type_name("DIR2")
      ->required();
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] {
      const auto changed = editing::revert_edited_model(options->directory, options->destination);
      if (invocation.options.quiet) return kDone;
      for (const auto& name : changed) {
        invocation.err << options->directory << "/" << name << " has changed since the edit was applied; "
                       << options->destination << "/" << name << " is as it was before the edit\n";
      }
      invocation.err << "wrote " << options->destination << "\n";
      return kDone;
    };
  });
}

}  // namespace proviso::cli

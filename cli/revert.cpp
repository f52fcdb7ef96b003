#include <memory>

#include "cli/command.hpp"
#include "editing/ledger.hpp"

namespace proviso::cli {

void register_revert(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("revert", "Undo what `apply` did, to the byte");
  struct Options {
    std::string directory, destination;
  };
  auto options = std::make_shared<Options>();
  command->add_option("DIR", options->directory, "a model that `proviso apply` wrote")->required();
  command->add_option("-o", options->destination, "where the model as it was is written")->type_name("DIR2")->required();
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options] {
      editing::revert_edited_model(options->directory, options->destination);
      return kDone;
    };
  });
}

}  // namespace proviso::cli


#include "cli/program.hpp"
#include "dsl/diagnostic.hpp"

namespace proviso::cli {

namespace {

const CLI::App* deepest(const CLI::App* app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().back();
  return app;
}

std::string command_line(const CLI::App* app) {
  return app->get_parent() ? command_line(app->get_parent()) + " " + app->get_name() : app->get_name();
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

/// The first option that is given more often than it can be; "" where there is none.
std::string repeated_option(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    if (static_cast<int>(option->count()) > option->get_items_expected_max()) return option->get_name();
  }
  return "";
}

}  // namespace

std::string usage_message(const CLI::App& program, const CLI::ParseError& error) {
  const CLI::App* command = deepest(&program);
  const std::string name = command_line(command);
  const std::string all = "`" + name + " --help` lists what there is";

  std::string message = error.what();
  std::optional<std::string> nearest;
  // CLI11 looks for missing arguments first; an argument that it could not place says more.
  if (const auto unplaced = program.remaining(true); !unplaced.empty()) {
    const std::string& argument = unplaced.front();
    const bool option = argument.starts_with("-") && argument != "-";
    const auto commands = command_names(*command);
    const std::string kind = option ? "option" : commands.empty() ? "argument" : "command";
    const std::string written = option ? argument.substr(0, argument.find('=')) : argument;
    message = (kind == "argument" ? "unexpected argument `" : "unknown " + kind + " `") + written + "`";
    nearest = dsl::nearest_name(written, option ? option_names(*command) : commands);
  } else if (dynamic_cast<const CLI::RequiredError*>(&error) && !command_names(*command).empty()) {
    message = "a command is missing";
  } else if (const std::string repeated = repeated_option(*command); !repeated.empty()) {
    message = repeated + " is given twice";
  }
  return name + ": error: " + message + "\n  help: " + (nearest ? "did you mean `" + *nearest + "`? " : "") + all +
         "\n";
}

}  // namespace proviso::cli

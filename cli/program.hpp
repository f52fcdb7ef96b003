#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "cli/command.hpp"

namespace proviso::cli {

/// The program whole: `arguments` are those after the program's name. Returns its exit code; throws nothing.
int run(std::vector<std::string> arguments, std::istream& in, std::ostream& out, std::ostream& err);

/// Puts every command on `program`.
void register_commands(CLI::App& program, Invocation& invocation);

/// What is wrong with the arguments, and the cure: the nearest option or command where a name is misspelt.
std::string usage_message(const CLI::App& program, const CLI::ParseError& error);

/// Runs a command's action and turns whatever it throws into a message and an exit code.
int guarded(const std::function<int()>& action, std::ostream& err);

}  // namespace proviso::cli

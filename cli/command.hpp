#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace proviso::cli {

/// What the program answers with; every command keeps to these.
enum ExitCode : int { kDone = 0, kFailed = 1, kInputAtFault = 2, kMachineAtFault = 3 };

/// Every command has the first three.
enum class OutputFormat { text, yaml, json, junit, html, dot };

/// Options that every command takes.
struct CommonOptions {
  std::string device = "cpu";     ///< cpu | cuda | cuda:N
  std::string dtype = "float32";  ///< float32 | bfloat16
  std::optional<int> threads;     ///< nothing: one a core
  std::uint64_t seed = 0;
  std::optional<OutputFormat> output;  ///< nothing: the command's own
  bool quiet = false;
  bool verbose = false;
  std::vector<std::string> allowed_paths;
  std::string cache;  ///< folder for what can be computed again
  bool strict = false;
  std::vector<std::string> disabled_passes;
};

/// `more` are forms of `--output` that this command has beside text, yaml and json, by name.
void add_common_options(CLI::App& command, CommonOptions& options,
                        const std::map<std::string, OutputFormat>& more = {});

/// Of digits alone, without overflow. (CLI11 reads "010" as octal and wraps what is too large.)
std::optional<std::uint64_t> whole_number(std::string_view text);

/// Of an option's text: not "".
extern const CLI::Validator kNotEmpty;

/// One run of the program: its options, its streams, and what the chosen command will do.
struct Invocation {
  std::istream& in;
  std::ostream& out;  ///< results
  std::ostream& err;  ///< logs, progress, and what went wrong
  CommonOptions options;
  std::function<int()> action;  ///< set by the command that the arguments name
};

#define PROVISO_COMMAND(name) void register_##name(CLI::App& program, Invocation& invocation);
#include "cli/commands.def"
#undef PROVISO_COMMAND

}  // namespace proviso::cli

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/command.hpp"
#include "dsl/check.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/rule_set.hpp"
#include "dsl/source.hpp"

namespace proviso::cli {

/// Prints diagnostics in the form that `--output` asks for, with carets unless told otherwise.
void print_diagnostics(const Invocation& invocation, std::ostream& out, const dsl::SourceSet& sources,
                       const std::vector<dsl::Diagnostic>& diagnostics);

/// Whether these stop a command: an error does, and under `--strict` a warning.
bool stops(const Invocation& invocation, const std::vector<dsl::Diagnostic>& diagnostics);

/// Where rule files may lead, as the options say.
dsl::LoadOptions load_options(const Invocation& invocation);

/// Reads and checks the rule files of a command line; `-`, which stands alone, is standard input.
dsl::CheckedParts check_rules(const Invocation& invocation, dsl::SourceSet& sources,
                              const std::vector<std::string>& paths);

/// The rule files of a command line, read and checked. `sources` outlives every span of `rules`.
struct RuleFiles {
  dsl::SourceSet sources;
  std::shared_ptr<const dsl::RuleSet> rules;  ///< null: something is wrong, and has been said on standard error
};
std::unique_ptr<RuleFiles> load_rules(const Invocation& invocation, const std::vector<std::string>& paths);

/// The folder of the shipped rules and texts: share/proviso/rules beside an installed program, else the
/// source tree's.
std::string shipped_rules();

}  // namespace proviso::cli

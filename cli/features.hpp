#pragma once

#include <CLI/CLI.hpp>

#include "cli/command.hpp"

namespace proviso::cli {

// `proviso features …`, a file each.
void register_features_find(CLI::App& features, Invocation& invocation);
void register_features_export(CLI::App& features, Invocation& invocation);

}  // namespace proviso::cli

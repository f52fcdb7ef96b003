#pragma once

#include "cli/command.hpp"
#include "runtime/progress.hpp"

namespace proviso::cli {

/// One line on standard error that is rewritten as the work goes on and wiped at its end. Empty, so that
/// nothing is called, where standard error is no terminal or `--quiet` is given.
runtime::Progress terminal_progress(const Invocation& invocation);

}  // namespace proviso::cli

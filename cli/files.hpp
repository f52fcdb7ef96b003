#pragma once

#include <string>

#include "cli/command.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::cli {

/// A text file whole, at most 64 MB; "-" is standard input. Throws `InputError`.
std::string read_text(const Invocation& invocation, const std::string& path);

}  // namespace proviso::cli

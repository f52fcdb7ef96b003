#pragma once

#include <string>

#include "cli/command.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::cli {

/// A text file whole, at most 64 MB; "-" is standard input. Throws `InputError`.
std::string read_text(const Invocation& invocation, const std::string& path);

/// The file to write in place of `path`: a symbolic link stays one, and the file that it leads to is written.
std::string written_file(const std::string& path);

}  // namespace proviso::cli

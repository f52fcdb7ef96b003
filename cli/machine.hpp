#pragma once

#include "audit/report.hpp"

namespace proviso::cli {

/// The machine that this runs on: its processor's name, cores, and the system.
audit::MachineFacts this_machine();

/// SHA-256 of the program's own file, remembered in `cache` by the file's identity; "" where the system does not tell
/// which file it is.
std::string program_sha256(const std::string& cache);

}  // namespace proviso::cli

#include "cli/machine.hpp"

#include <sys/utsname.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "runtime/formats/sha256.hpp"

namespace proviso::cli {

namespace {

/// "AMD EPYC 7763 64-Core Processor"; the architecture where Linux does not name it.
std::string processor_name(const std::string& architecture) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const auto name = line.find_first_not_of(" \t", line.find(':') + 1);
    if (name != std::string::npos) return line.substr(name);
  }
  return architecture;
}

}  // namespace

audit::MachineFacts this_machine() {
  utsname system{};
  uname(&system);
  return {processor_name(system.machine), std::string(system.sysname) + " " + system.release + " " + system.machine,
          static_cast<std::int64_t>(std::thread::hardware_concurrency())};
}

std::string program_sha256(const std::string& cache) {
  // Through the link, which is the program that runs even where its file has been replaced since.
  const std::string running = "/proc/self/exe";
  std::error_code unknown;
  return std::filesystem::exists(running, unknown) ? model::sha256_of_files({running}, cache) : "";
}

}  // namespace proviso::cli

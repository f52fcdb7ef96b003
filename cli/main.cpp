#include <csignal>
#include <iostream>

#include "cli/program.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/model/allocation.hpp"

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of the write
  proviso::model::remove_temporaries_on_signals();
  proviso::model::reuse_freed_memory();
  return proviso::cli::run(std::vector<std::string>(argv + 1, argv + argc), std::cin, std::cout, std::cerr);
}

#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "cli/program.hpp"

/// What one run of the program gave.
struct Ran {
  int code = -1;
  std::string out, err;
};

inline Ran run_program(const std::vector<std::string>& arguments, const std::string& input = "") {
  std::istringstream in(input);
  std::ostringstream out, err;
  const int code = proviso::cli::run(arguments, in, out, err);
  return {code, out.str(), err.str()};
}

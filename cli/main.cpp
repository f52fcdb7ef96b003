#include <iostream>

#include "cli/program.hpp"

int main(int argc, char** argv) {
  return proviso::cli::run(std::vector<std::string>(argv + 1, argv + argc), std::cin, std::cout, std::cerr);
}

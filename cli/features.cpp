#include "cli/features.hpp"

namespace proviso::cli {

void register_features(CLI::App& program, Invocation& invocation) {
  CLI::App* features =
      program.add_subcommand("features", "Find features of a model by prompts, and keep them in files");
  features->require_subcommand(1);
  register_features_find(*features, invocation);
  register_features_export(*features, invocation);
}

}  // namespace proviso::cli

#include "audit/data_files.hpp"

#include <set>
#include <string_view>
#include <variant>

#include "dsl/metric_traits.hpp"

namespace proviso::audit {
namespace {

/// Parameters of edit methods that name a file.
const std::set<std::string, std::less<>>& path_parameters() {
  static const std::set<std::string, std::less<>> names = {
#define PROVISO_METHOD_PATH(method, parameter) #parameter,
#include "dsl/edit_methods.def"
  };
  return names;
}

}  // namespace

std::vector<std::string> data_files(const dsl::RuleSet& rules) {
  std::set<std::string> files;
  for (const dsl::PromptsDecl& prompts : rules.prompts)
    if (const auto* file = std::get_if<dsl::PromptFile>(&prompts.source)) files.insert(file->path);
  for (const dsl::FeatureDecl& feature : rules.features)
    if (const auto* stored = std::get_if<dsl::StoredDirection>(&feature.constructor)) files.insert(stored->path);
  const auto autoencoder = [&files](const std::string& folder) {
    files.insert(folder + "/cfg.json");
    files.insert(folder + "/sae_weights.safetensors");
  };
  for (const dsl::FeatureDecl& feature : rules.features)
    if (const auto* latent = std::get_if<dsl::Latent>(&feature.constructor)) autoencoder(latent->folder);
  for (const dsl::CircuitDecl& circuit : rules.circuits)
    for (const auto& each : circuit.method.autoencoders) autoencoder(each.folder);
  for (const dsl::CheckDecl& check : rules.checks)
    for (const dsl::Expectation& expectation : check.expectations)
      if (const auto* folder = dsl::measured_autoencoder(expectation.metric)) autoencoder(*folder);
  for (const dsl::EditDecl& edit : rules.edits) {
    for (const dsl::EditChange& change : edit.changes)
      if (const auto* facts = std::get_if<dsl::FactFile>(&change)) files.insert(facts->file.path);
    for (const auto& [name, value] : edit.method.parameters)
      if (const auto* text = std::get_if<std::string>(&value); text && path_parameters().count(name) > 0)
        files.insert(*text);
  }
  return {files.begin(), files.end()};
}

}  // namespace proviso::audit

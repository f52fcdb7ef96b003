#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "audit/feature_catalogue.hpp"
#include "cli/features.hpp"
#include "cli/models.hpp"
#include "cli/output.hpp"
#include "runtime/formats/atomic_file.hpp"

namespace proviso::cli {

namespace {

struct Options {
  std::vector<std::string> files;
  std::string model, output;
};

int write_catalogue(const Invocation& invocation, Options options) {
  while (options.output.size() > 1 && options.output.back() == '/') options.output.pop_back();
  model::require_new_directory(options.output);
  const auto opened = bind_rules(invocation, options.files, options.model);
  if (!opened->bound) return kInputAtFault;
  std::set<dsl::FeatureId> wanted;
  for (dsl::FeatureId id = 0; id < opened->bound->rules->features.size(); ++id) {
    if (!opened->bound->rules->features[id].imported) wanted.insert(id);
  }
  if (wanted.empty())
    throw model::InputError("the rule files declare no feature\n  help: what a file only `use`s is not exported");
  const auto transformer = load_weights(invocation, *opened->model);
  if (!choose_sites(invocation, *opened, wanted, [&]() -> model::Transformer& { return *transformer; }))
    return kInputAtFault;
  runtime::Session session(*transformer, *opened->bound, session_options(invocation));
  const auto diagnostics = session.build(wanted);
  print_diagnostics(invocation, invocation.err, opened->files->sources, diagnostics);
  if (stops(invocation, diagnostics)) return kInputAtFault;
  const auto catalogue = audit::feature_catalogue(
      *opened->bound, session.features(), opened->files->sources,
      {"proviso " PROVISO_VERSION, opened->model->card.sha256(invocation.options.cache), invocation.options.cache});
  if (catalogue.written.empty())
    throw model::InputError("all features are latents, which their autoencoders' folders hold already");
  model::write_directory_atomically(options.output, [&](const std::string& temporary) {
    model::write_file_atomically(temporary + "/" + audit::FeatureCatalogue::kRules, catalogue.rules);
    model::write_file_atomically(temporary + "/" + audit::FeatureCatalogue::kTensors, catalogue.tensors);
  });

  const auto format = invocation.options.output.value_or(OutputFormat::text);
  if (format != OutputFormat::text) {
    nlohmann::ordered_json said = {{"catalogue", options.output}, {"features", catalogue.written}};
    said["left_out"] = nlohmann::ordered_json::array();
    for (const auto& [name, why] : catalogue.left_out) said["left_out"].push_back({{"feature", name}, {"why", why}});
    invocation.out << render_document(said, format);
    return kDone;
  }
  invocation.out << options.output << ": " << catalogue.written.size()
                 << (catalogue.written.size() == 1 ? " feature" : " features") << ":";
  for (const auto& name : catalogue.written) invocation.out << " " << name;
  invocation.out << "\n";
  for (const auto& [name, why] : catalogue.left_out) invocation.out << "  left out: " << name << ": " << why << "\n";
  return kDone;
}

}  // namespace

void register_features_export(CLI::App& features, Invocation& invocation) {
  CLI::App* command = features.add_subcommand(
      "export", "Build the features of rule files and keep them as vectors that other rule files use");
  command->footer(
      "DIR holds features.proviso, a `direction(…)` for each feature with what it was built from, and their vectors "
      "in\n"
      "features.safetensors. In another rule file: use \"DIR/features.proviso\" as catalogue.");
  auto options = std::make_shared<Options>();
  add_rule_files(*command, options->files);
  add_model_option(*command, options->model);
  command->add_option("-o", options->output, "the folder to write; an existing one is never overwritten")
      ->check(kNotEmpty)
      ->type_name("DIR")
      ->required();
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return write_catalogue(invocation, *options); };
  });
}

}  // namespace proviso::cli

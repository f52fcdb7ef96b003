#include "cli/models.hpp"

#include <ATen/Parallel.h>

#include <ostream>

#include "runtime/bind.hpp"

namespace proviso::cli {

std::unique_ptr<ModelFiles> open_model(const std::string& path) {
  return std::make_unique<ModelFiles>(ModelFiles{model::read_model_card(path), model::Tokenizer::load(path)});
}

std::unique_ptr<model::Transformer> load_weights(const Invocation& invocation, const ModelFiles& files) {
  const auto& options = invocation.options;
  if (options.threads) at::set_num_threads(*options.threads);
  model::Transformer::Options wanted;
  wanted.dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  wanted.device = at::Device(options.device);
  return model::Transformer::load(files.card, wanted);
}

int threads_in_use() { return at::get_num_threads(); }

std::unique_ptr<BoundFiles> bind_rules(const Invocation& invocation, const std::vector<std::string>& paths,
                                       const std::string& model_path) {
  auto opened = std::make_unique<BoundFiles>();
  opened->files = load_rules(invocation, paths);
  if (!opened->files->rules) return opened;
  opened->model = open_model(model_path);
  auto outcome =
      runtime::bind(opened->files->rules, opened->model->card, opened->model->tokenizer, invocation.options.cache);
  if (!outcome.diagnostics.empty()) {
    print_diagnostics(invocation, invocation.err, opened->files->sources, outcome.diagnostics);
  }
  if (!stops(invocation, outcome.diagnostics)) opened->bound = std::move(outcome.value);
  return opened;
}

std::string shipped_corpus() { return shipped_rules() + "/corpus"; }
std::string shipped_held_out() { return shipped_corpus() + "/held_out"; }

void add_model_option(CLI::App& command, std::string& model) {
  command
      .add_option("--model", model,
                  "a Hugging Face directory, a .safetensors file beside its config.json, or a .gguf file")
      ->type_name("M")
      ->required();
}

void add_rule_files(CLI::App& command, std::vector<std::string>& files) {
  command.add_option("FILE", files, "rule files")->required();
}

}  // namespace proviso::cli

#include "cli/models.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <ostream>

#include "cli/progress.hpp"
#include "dsl/prompt_file.hpp"
#include "runtime/bind.hpp"
#include "runtime/features/choose_sites.hpp"
#include "runtime/plan.hpp"

namespace proviso::cli {

namespace {

/// Sums on a GPU round alike in every run, as they do on a CPU.
void sum_in_one_order() {
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // read when cuBLAS starts
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

at::Device device_of(const std::string& name) {
  const at::Device device(name);
  if (device.is_cpu()) return device;
  const auto count = at::hasCUDA() ? static_cast<int>(at::getNumGPUs()) : 0;
  if (count == 0) {
    throw model::InputError("--device " + name +
                            ": LibTorch finds no CUDA device\n  help: use --device cpu, or install the driver and a "
                            "LibTorch that is built with CUDA");
  }
  if (device.has_index() && device.index() >= count) {
    throw model::InputError("--device " + name +
                            ": there is no such device\n  help: the last is cuda:" + std::to_string(count - 1));
  }
  sum_in_one_order();
  return device;
}

}  // namespace

std::unique_ptr<ModelFiles> open_model(const std::string& path) {
  return std::make_unique<ModelFiles>(ModelFiles{model::read_model_card(path), model::Tokenizer::load(path)});
}

std::vector<dsl::Prompt> read_prompts(const std::string& path) {
  const auto mapped = model::MappedFile::open(path);
  dsl::PromptFile file;
  file.path = path;
  auto read =
      dsl::read_prompt_file(file, {reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size()});
  if (!read.value) throw model::InputError(read.diagnostics.front().message);
  if (read.value->empty()) throw model::InputError(path + " holds no prompt\n  help: write one text a line");
  return std::move(*read.value);
}

std::vector<std::vector<std::int64_t>> read_prompt_tokens(const std::string& path, const ModelFiles& files) {
  std::vector<std::vector<std::int64_t>> prompts;
  for (const auto& prompt : read_prompts(path)) {
    prompts.push_back(files.tokenizer->encode(prompt.text, /*add_special=*/true));
    if (prompts.back().empty()) throw model::InputError(path + ": a prompt has no tokens");
  }
  return prompts;
}

std::set<dsl::Site> sites_of(const std::vector<std::string>& texts, const model::ModelCard& card) {
  std::set<dsl::Site> sites;  // two names of one site are one
  for (const auto& text : texts) {
    const auto spec = dsl::parse_site(text);
    if (!spec) throw model::InputError("`" + text + "` is no site\n  help: write resid_post[14], mlp_out[*], embed, …");
    if (const auto why = card.missing_site(spec->kind); !why.empty()) throw model::InputError(why);
    const auto all = [&](const dsl::IndexSet& set, std::int64_t count, const char* what) {
      for (const auto& range : set.ranges) {
        if (range.last >= count) {
          throw model::InputError("`" + text + "`: the model has no " + what + " " + std::to_string(range.last) +
                                  "\n  help: the last is " + std::to_string(count - 1));
        }
      }
      return set.expand(count);
    };
    const auto layers = dsl::site_has_layer(spec->kind) ? all(spec->layers, card.config.layers, "layer")
                                                        : std::vector<std::int64_t>{-1};
    const auto heads =
        spec->heads ? all(*spec->heads, card.site_heads(spec->kind), "head") : std::vector<std::int64_t>{-1};
    for (auto layer : layers) {
      for (auto head : heads) sites.insert(dsl::canonical({spec->kind, layer, head}));
    }
  }
  return sites;
}

std::unique_ptr<model::Transformer> load_weights(const Invocation& invocation, const ModelFiles& files) {
  const auto& options = invocation.options;
  if (options.threads) at::set_num_threads(*options.threads);
  model::Transformer::Options wanted;
  wanted.dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  wanted.device = device_of(options.device);
  return model::Transformer::load(files.card, wanted);
}

int threads_in_use() { return at::get_num_threads(); }

bool choose_sites(const Invocation& invocation, BoundFiles& opened, const std::set<dsl::FeatureId>& wanted,
                  const std::function<model::Transformer&()>& weights) {
  if (!runtime::sites_open(*opened.bound, wanted)) return true;
  auto chosen =
      runtime::choose_sites(*opened.bound, weights(), wanted, invocation.options.cache, terminal_progress(invocation));
  print_diagnostics(invocation, invocation.err, opened.files->sources, chosen.diagnostics);
  if (!chosen.value) return false;
  opened.bound = std::move(chosen.value);
  return true;
}

const std::shared_ptr<const ModelFiles>& SharedModel::files() {
  if (!files_) files_ = open_model(path_);
  return files_;
}

model::Transformer& SharedModel::weights() {
  if (!weights_) weights_ = load_weights(invocation_, *files());
  return *weights_;
}

std::unique_ptr<BoundFiles> bind_rules(const Invocation& invocation, const std::vector<std::string>& paths,
                                       const std::string& model_path) {
  SharedModel model(invocation, model_path);
  return bind_rules(invocation, paths, model);
}

std::unique_ptr<BoundFiles> bind_rules(const Invocation& invocation, const std::vector<std::string>& paths,
                                       SharedModel& model) {
  auto opened = std::make_unique<BoundFiles>();
  opened->files = load_rules(invocation, paths);
  if (!opened->files->rules) return opened;
  opened->model = model.files();
  auto outcome = runtime::bind(opened->files->rules, opened->model->card, opened->model->tokenizer,
                               invocation.options.cache, invocation.options.seed);
  if (!outcome.diagnostics.empty()) {
    print_diagnostics(invocation, invocation.err, opened->files->sources, outcome.diagnostics);
  }
  if (!stops(invocation, outcome.diagnostics)) opened->bound = std::move(outcome.value);
  return opened;
}

std::set<std::string> passes_off(const Invocation& invocation) {
  std::vector<std::string> known;
  for (const auto& pass : runtime::plan_passes()) known.emplace_back(pass.name);
  for (const auto& name : invocation.options.disabled_passes) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const auto nearest = dsl::nearest_name(name, known);
    throw model::InputError("there is no plan pass `" + name + "`\n  help: " +
                            (nearest ? "did you mean `" + *nearest + "`?" : "`proviso explain` lists them"));
  }
  return {invocation.options.disabled_passes.begin(), invocation.options.disabled_passes.end()};
}

runtime::SessionOptions session_options(const Invocation& invocation) {
  runtime::SessionOptions options;
  options.seed = invocation.options.seed;
  options.cache_directory = invocation.options.cache;
  options.corpus_path = shipped_corpus();
  options.progress = terminal_progress(invocation);
  return options;
}

const std::vector<runtime::SolvedEdit>& solved(runtime::Session& session, const dsl::RuleSet& rules,
                                               const std::vector<dsl::EditId>& edits) {
  const auto& all = session.solve(edits);
  for (const auto& edit : all) {
    if (edit.refused.empty()) continue;
    throw model::InputError("edit " + rules.edits[edit.edit].name + " cannot be made: " + edit.refused);
  }
  return all;
}

std::string shipped_corpus() { return shipped_rules() + "/corpus"; }
std::string shipped_held_out() { return shipped_corpus() + "/held_out"; }
std::string shipped_facts() { return shipped_rules() + "/facts/data"; }

void add_model_option(CLI::App& command, std::string& model) {
  command
      .add_option("--model", model,
                  "a Hugging Face directory, a .safetensors file beside its config.json, or a .gguf file")
      ->check(kNotEmpty)
      ->type_name("M")
      ->required();
}

void add_rule_files(CLI::App& command, std::vector<std::string>& files) {
  command.add_option("FILE", files, "rule files; `-`, alone, is standard input")->check(kNotEmpty)->required();
}

}  // namespace proviso::cli

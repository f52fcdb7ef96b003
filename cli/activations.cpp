#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>

#include "cli/models.hpp"
#include "cli/output.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/pass_groups.hpp"

namespace proviso::cli {

namespace {

struct Options {
  std::string model, prompts, output;
  std::vector<std::string> at;
};

/// Keeps what stands at the sites asked for, token after token; a pattern is one tensor a prompt.
class Harvest : public model::SiteVisitor {
 public:
  Harvest(const std::set<dsl::Site>& sites, const model::ModelCard& card) : sites_(sites), card_(card) {}

  bool wants(const dsl::Site& site) const override {
    return std::any_of(sites_.begin(), sites_.end(), [&](const dsl::Site& asked) { return same_place(asked, site); });
  }

  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout&) override {
    for (const auto& asked : sites_) {
      if (!same_place(asked, site)) continue;
      auto part = x;
      if (asked.head >= 0 && asked.kind == dsl::SiteKind::pattern) part = x.narrow(0, asked.head, 1);
      if (asked.head >= 0 && asked.kind != dsl::SiteKind::pattern) {
        const auto width = card_.site_width(asked);
        part = x.narrow(1, asked.head * width, width);
      }
      auto& kept = kept_[dsl::to_string(asked)];
      kept.push_back(part.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).cpu().contiguous());
    }
  }

  std::map<std::string, at::Tensor> tensors() const {
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, parts] : kept_) {
      if (parts.front().dim() == 3) {
        for (std::size_t i = 0; i < parts.size(); ++i) tensors[name + "/" + std::to_string(i)] = parts[i];
      } else {
        tensors[name] = at::cat(parts).contiguous();
      }
    }
    return tensors;
  }

 private:
  static bool same_place(const dsl::Site& a, const dsl::Site& b) { return a.kind == b.kind && a.layer == b.layer; }

  const std::set<dsl::Site>& sites_;
  const model::ModelCard& card_;
  std::map<std::string, std::vector<at::Tensor>> kept_;
};

int harvest(const Invocation& invocation, const Options& options) {
  const bool to_stream = options.output == "-";
  if (to_stream && is_terminal(invocation.out)) {
    throw model::InputError("-o -: a terminal cannot show tensors\n  help: lead standard output into a file or a pipe");
  }
  if (!to_stream) model::require_writable(options.output);
  const auto files = open_model(options.model);
  const auto sites = sites_of(options.at, files->card);
  const auto prompts = read_prompt_tokens(options.prompts, *files);
  const auto transformer = load_weights(invocation, *files);
  const at::NoGradGuard no_grad;
  Harvest visitor(sites, files->card);
  const bool logits =
      std::any_of(sites.begin(), sites.end(), [](const dsl::Site& s) { return s.kind == dsl::SiteKind::logits; });
  const auto length = [&](std::size_t i) { return std::ssize(prompts[i]); };
  for (const auto& [begin, end] : model::pass_groups(prompts.size(), length)) {
    std::vector<model::Row> rows;
    for (std::size_t i = begin; i < end; ++i) rows.push_back({prompts[i], length(i)});
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &visitor;
    if (logits) {
      pass.logits_at = std::nullopt;
    } else {
      pass.stop_after = dsl::whole(*sites.rbegin());
    }
    transformer->forward(pass);
  }
  const auto tensors = visitor.tensors();
  std::vector<model::TensorToWrite> written;
  for (const auto& [name, tensor] : tensors) {
    written.push_back(
        {name, model::ElementType::f32, tensor.sizes().vec(),
         std::as_bytes(std::span(tensor.const_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())))});
  }
  const std::map<std::string, std::string> metadata = {
      {"format", "pt"}, {"model", files->card.name}, {"tokens", nlohmann::json(prompts).dump()}};
  if (to_stream) {
    invocation.out << model::safetensors_bytes(written, metadata);
  } else {
    model::write_safetensors(options.output, written, metadata);
  }
  return kDone;
}

}  // namespace

void register_activations(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("activations",
                                             "Harvest activations: one tensor a site, [tokens, width], prompt after "
                                             "prompt; the token ids are in the metadata");
  auto options = std::make_shared<Options>();
  add_model_option(*command, options->model);
  command->add_option("--at", options->at, "sites: resid_post[14], mlp_out[*], z[3] head 2, blocks.14.hook_resid_post")
      ->type_name("SITE")
      ->required();
  command->add_option("--prompts", options->prompts, "prompts: .txt (one a line), .jsonl, .json or .csv")
      ->check(kNotEmpty)
      ->type_name("FILE")
      ->required();
  command->add_option("-o", options->output, "the safetensors file to write; `-` is standard output")
      ->check(kNotEmpty)
      ->type_name("FILE")
      ->required();
  add_common_options(*command, invocation.options);
  command->callback(
      [options, &invocation] { invocation.action = [options, &invocation] { return harvest(invocation, *options); }; });
}

}  // namespace proviso::cli

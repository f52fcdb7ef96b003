#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <ostream>

#include "audit/text_page.hpp"
#include "cli/output.hpp"
#include "cli/progress.hpp"
#include "cli/sae.hpp"
#include "runtime/autoencoders/latent_reading.hpp"

namespace proviso::cli {

namespace {

using model::InputError;
using nlohmann::ordered_json;

struct Options : SaeOptions {
  std::vector<std::int64_t> latents;
  std::string positive, negative;
  std::int64_t top = 10;
  runtime::ReadingOptions reading;
};

std::vector<model::Row> rows_of(const std::string& path, const ModelFiles& files) {
  std::vector<model::Row> rows;
  for (auto& tokens : read_prompt_tokens(path, files)) {
    if (tokens.size() < 2)
      throw InputError(path + ": a prompt of one token is all attention sink\n  help: write longer prompts");
    const auto length = std::ssize(tokens);
    rows.push_back({std::move(tokens), length});
  }
  return rows;
}

struct Chosen {
  std::vector<std::int64_t> latents;
  at::Tensor aurocs;  // [all latents] float64; undefined where nothing was ranked
};

Chosen choose(const Options& options, const SaeInputs& inputs) {
  Chosen chosen;
  if (!options.positive.empty()) {
    chosen.aurocs =
        runtime::latent_aurocs(*inputs.transformer, *inputs.autoencoder, rows_of(options.positive, *inputs.files),
                               rows_of(options.negative, *inputs.files));
    std::vector<std::int64_t> order(static_cast<std::size_t>(chosen.aurocs.size(0)));
    std::iota(order.begin(), order.end(), 0);
    const double* area = chosen.aurocs.const_data_ptr<double>();
    std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) { return area[a] > area[b]; });
    order.resize(std::min(order.size(), static_cast<std::size_t>(options.top)));
    chosen.latents = std::move(order);
    return chosen;
  }
  chosen.latents = options.latents;
  for (const auto latent : chosen.latents) {
    if (latent < inputs.card.d_sae) continue;
    throw InputError("--latent " + std::to_string(latent) + ": the last is " + std::to_string(inputs.card.d_sae - 1));
  }
  if (chosen.latents.empty()) {
    chosen.latents = runtime::strongest_latents(*inputs.transformer, *inputs.autoencoder, inputs.texts, options.top);
  }
  return chosen;
}

class Told {
 public:
  Told(const SaeInputs& inputs, const Chosen& chosen) : inputs_(inputs), chosen_(chosen) {}

  ordered_json json(const std::vector<runtime::LatentReading>& readings) const {
    ordered_json latents = ordered_json::array();
    for (const auto& reading : readings) latents.push_back(json(reading));
    return {{"autoencoder", inputs_.card.folder},
            {"model", inputs_.files->card.name},
            {"site", dsl::to_string(inputs_.card.site)},
            {"tokens", inputs_.texts.tokens},
            {"latents_ranked", chosen_.aurocs.defined() ? ordered_json(inputs_.card.d_sae) : ordered_json(nullptr)},
            {"latents", std::move(latents)}};
  }

  std::string text(const std::vector<runtime::LatentReading>& readings) const {
    std::string text;
    char line[256];
    if (chosen_.aurocs.defined()) {
      std::snprintf(line, sizeof line,
                    "The best of %lld latents by AUROC of their largest activation: with so many, some tell any two "
                    "sets of prompts apart by chance\n",
                    static_cast<long long>(inputs_.card.d_sae));
      text += line;
    }
    for (const auto& reading : readings) {
      text += "latent " + std::to_string(reading.latent);
      if (const double area = auroc(reading.latent); !std::isnan(area)) {
        std::snprintf(line, sizeof line, ", AUROC %.4f", area);
        text += line;
      }
      std::snprintf(line, sizeof line, ": fires at %.2f %% of positions, mean %.3g, at most %.3g\n",
                    100 * share(reading), reading.mean, reading.max);
      text += line;
      for (const auto& context : reading.contexts) {
        std::snprintf(line, sizeof line, "  %8.3g  ", context.activation);
        text += line + one_line(decoded(context.before)) + "«" + one_line(decoded({context.token})) + "»" +
                one_line(decoded(context.after)) + "\n";
      }
      text += tokens("  raises", reading.logits.raises) + tokens("  lowers", reading.logits.lowers);
    }
    return text;
  }

 private:
  double auroc(std::int64_t latent) const {
    return chosen_.aurocs.defined() ? chosen_.aurocs[latent].item<double>() : std::nan("");
  }
  static double share(const runtime::LatentReading& reading) {
    return reading.positions > 0 ? static_cast<double>(reading.fired) / static_cast<double>(reading.positions) : 0;
  }
  std::string decoded(const std::vector<std::int64_t>& tokens) const {
    return inputs_.files->tokenizer->decode(tokens);
  }

  static std::string one_line(const std::string& text) { return audit::harmless(audit::on_one_line(text)); }

  std::string tokens(const char* what, const runtime::TokenWeights& of) const {
    if (of.empty()) return "";
    std::string text = what;
    for (const auto& [id, weight] : of) text += " \"" + one_line(decoded({id})) + "\"";
    return text + "\n";
  }

  ordered_json json(const runtime::LatentReading& reading) const {
    ordered_json contexts = ordered_json::array();
    for (const auto& context : reading.contexts) {
      contexts.push_back({{"activation", context.activation},
                          {"before", decoded(context.before)},
                          {"token", decoded({context.token})},
                          {"after", decoded(context.after)}});
    }
    const auto weights = [&](const runtime::TokenWeights& of) {
      ordered_json list = ordered_json::array();
      for (const auto& [id, weight] : of) list.push_back({{"id", id}, {"text", decoded({id})}, {"weight", weight}});
      return list;
    };
    const double area = auroc(reading.latent);
    return {{"latent", reading.latent},
            {"auroc", std::isnan(area) ? ordered_json(nullptr) : ordered_json(area)},
            {"fires", share(reading)},
            {"mean", reading.mean},
            {"max", reading.max},
            {"contexts", std::move(contexts)},
            {"raises", weights(reading.logits.raises)},
            {"lowers", weights(reading.logits.lowers)}};
  }

  const SaeInputs& inputs_;
  const Chosen& chosen_;
};

int top(const Invocation& invocation, const Options& options) {
  if (options.positive.empty() != options.negative.empty())
    throw InputError("--positive and --negative go together: latents are ranked by how they tell the two apart");
  if (!options.latents.empty() && !options.positive.empty())
    throw InputError("--latent names what --positive and --negative would find: give one or the other");
  const auto inputs = open_sae(invocation, options.folder, options.model, options.texts, options.context);
  const auto chosen = choose(options, inputs);
  const auto readings = runtime::read_latents(*inputs.transformer, *inputs.autoencoder, inputs.texts, chosen.latents,
                                              options.reading, terminal_progress(invocation));
  const Told told(inputs, chosen);
  const auto format = invocation.options.output.value_or(OutputFormat::text);
  invocation.out << (format == OutputFormat::text ? told.text(readings) : render_document(told.json(readings), format));
  return kDone;
}

}  // namespace

void register_sae_top(CLI::App& sae, Invocation& invocation) {
  CLI::App* command = sae.add_subcommand(
      "top", "Read latents: where they fire most in a text, and which tokens' logits they raise and lower");
  command->footer(
      "Without --latent, or --positive and --negative, those that have most of a hand in the text are read.");
  auto options = std::make_shared<Options>();
  add_sae_options(*command, *options);
  auto* latent = command->add_option("--latent", options->latents, "latents to read, by number");
  latent->check(CLI::Range(0, INT32_MAX))->type_name("I");
  command->add_option("--positive", options->positive, "prompts that should make a latent fire: ranks latents by AUROC")
      ->check(kNotEmpty)
      ->type_name("FILE");
  command->add_option("--negative", options->negative, "prompts that should not")->check(kNotEmpty)->type_name("FILE");
  command->add_option("--top", options->top, "how many latents are read")
      ->check(CLI::Range(1, 100'000))
      ->excludes(latent)
      ->capture_default_str();
  command->add_option("--contexts", options->reading.contexts, "places shown of each")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_common_options(*command, invocation.options);
  command->callback(
      [options, &invocation] { invocation.action = [options, &invocation] { return top(invocation, *options); }; });
}

}  // namespace proviso::cli

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "audit/latent_measures.hpp"
#include "audit/report_words.hpp"
#include "cli/output.hpp"
#include "cli/progress.hpp"
#include "cli/sae.hpp"
#include "runtime/autoencoders/quality.hpp"

namespace proviso::cli {

namespace {

using nlohmann::ordered_json;

ordered_json described(const SaeInputs& inputs, const runtime::AutoencoderQuality& quality) {
  const auto& card = inputs.card;
  ordered_json json = {{"autoencoder", card.folder},
                       {"architecture", runtime::architecture_name(card.architecture)},
                       {"site", dsl::to_string(card.site)},
                       {"latents", card.d_sae},
                       {"model", inputs.files->card.name},
                       {"rows", quality.rows},
                       {"tokens", quality.tokens},
                       {"positions", quality.positions},
                       {"l0", quality.l0},
                       {"variance_explained", quality.variance_explained},
                       {"loss",
                        {{"clean", quality.loss_clean},
                         {"reconstructed", quality.loss_reconstructed},
                         {"mean_ablated", quality.loss_ablated}}},
                       {"loss_recovered", quality.loss_recovered},
                       {"dead", quality.dead()},
                       {"dense", quality.dense()}};
  if (card.is_transcoder()) json["written"] = dsl::to_string(card.written);
  return json;
}

struct Options : SaeOptions {
  std::vector<std::string> labelled, spurious;
  std::int64_t k = 0;
};

std::vector<std::pair<std::string, std::vector<dsl::Prompt>>> read_sets(const std::vector<std::string>& files) {
  std::vector<std::pair<std::string, std::vector<dsl::Prompt>>> sets;
  for (const auto& file : files) sets.emplace_back(file, read_prompts(file));
  return sets;
}

/// The measures of single latents, where labelled prompts are given; empty where none are, or diagnostics stop it.
std::optional<std::vector<audit::LatentMeasure>> latents_of(const Invocation& invocation, const Options& options,
                                                            const SaeInputs& inputs) {
  if (options.labelled.empty() && options.spurious.empty()) return std::vector<audit::LatentMeasure>{};
  dsl::SourceSet sources;
  auto measured = audit::measure_latents(
      {options.folder, read_sets(options.labelled), read_sets(options.spurious), options.k},
      {*inputs.transformer, inputs.files->tokenizer, session_options(invocation), passes_off(invocation)}, sources);
  print_diagnostics(invocation, invocation.err, sources, measured.diagnostics);
  return std::move(measured.value);
}

void add_latents(ordered_json& json, const std::vector<audit::LatentMeasure>& measures) {
  for (const auto& measure : measures) {
    const auto& estimate = measure.estimate;
    ordered_json entry = {{"metric", measure.metric}};
    if (!measure.about.empty()) entry["class"] = measure.about;
    entry["value"] = std::isfinite(estimate.value) ? ordered_json(estimate.value) : ordered_json(nullptr);
    entry["interval"] =
        estimate.interval ? ordered_json({estimate.interval->low, estimate.interval->high}) : ordered_json(nullptr);
    entry["n"] = estimate.n;
    if (!estimate.interval && !estimate.why_no_interval.empty()) entry["why_no_interval"] = estimate.why_no_interval;
    json["latent_measures"].push_back(std::move(entry));
  }
}

std::string latents_text(const std::vector<audit::LatentMeasure>& measures) {
  std::string text;
  if (!measures.empty()) text += "single latents, on held-out prompts (95 % intervals)\n";
  for (const auto& measure : measures) {
    const auto& estimate = measure.estimate;
    const auto shown = [](double value) { return audit::number_text(value, true); };
    std::string name = measure.metric + (measure.about.empty() ? "" : " of " + measure.about);
    name.resize(std::max<std::size_t>(name.size() + 2, 36), ' ');
    text += "  " + name + shown(estimate.value);
    text += estimate.interval ? " [" + shown(estimate.interval->low) + ", " + shown(estimate.interval->high) + "]"
                              : " (no interval: " + estimate.why_no_interval + ")";
    text += ", " + audit::counted(estimate.n, "prompt") + "\n";
  }
  return text;
}

std::string as_text(const SaeInputs& inputs, const runtime::AutoencoderQuality& q) {
  const auto& card = inputs.card;
  const auto share = [&](std::int64_t count) {
    return 100.0 * static_cast<double>(count) / static_cast<double>(card.d_sae);
  };
  std::ostringstream text;
  text << card.folder << ": " << runtime::architecture_name(card.architecture) << ", " << card.d_sae
       << " latents, reads " << dsl::to_string(card.site) << " of " << inputs.files->card.name << "\n"
       << "on " << q.tokens << " tokens in " << q.rows << " rows; " << q.positions
       << " positions are no attention sinks\n"
       << std::fixed << std::setprecision(4)  //
       << "  L0                  " << q.l0 << " latents fire at a position\n"
       << "  variance explained  " << q.variance_explained << "\n"
       << "  loss recovered      " << q.loss_recovered << " (" << q.loss_clean << " nats a token, "
       << q.loss_reconstructed << " reconstructed, " << q.loss_ablated << " mean-ablated)\n"
       << std::setprecision(1)  //
       << "  dead latents        " << q.dead() << " (" << share(q.dead()) << " %) fire nowhere in this text\n"
       << "  dense latents       " << q.dense() << " (" << share(q.dense()) << " %) fire at more than "
       << std::setprecision(0) << 100 * runtime::kDenseShare << " % of the positions\n";
  if (card.scale_untold) {
    text << "  note: trained on inputs scaled by a mean that the folder does not tell (expected_average_only_in); "
            "computed, as SAELens does, without it\n";
  }
  return text.str();
}

}  // namespace

void register_sae_eval(CLI::App& sae, Invocation& invocation) {
  CLI::App* command = sae.add_subcommand(
      "eval", "Measure an autoencoder on text: L0, variance explained, loss recovered, dead and dense latents");
  command->footer(
      "Loss recovered is 1 - (reconstructed - clean) / (mean-ablated - clean), attention sinks left as they are.\n"
      "With --labelled: how well single latents stand for labels, as `sparse_probing`, `absorption` and (of three\n"
      "labels or more) `tpp` measure it in checks; with --spurious: `scr`.");
  auto options = std::make_shared<Options>();
  add_sae_options(*command, *options);
  command
      ->add_option("--labelled", options->labelled,
                   "a file of prompts for each label, two or more: sparse probing, absorption, and targeted probe "
                   "perturbation")
      ->check(kNotEmpty)
      ->type_name("FILE");
  constexpr int kSpuriousSets = 4;
  command
      ->add_option(
          "--spurious", options->spurious,
          "four files: prompts with what is wanted and what is spurious, with the first alone, with the second "
          "alone, with neither: spurious correlation removal")
      ->check(kNotEmpty)
      ->type_name("FILE")
      ->expected(kSpuriousSets);
  command
      ->add_option("--latents", options->k, "how many latents these measures take; as each metric has it unless told")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->type_name("K");
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation]() -> int {
      const auto inputs = open_sae(invocation, options->folder, options->model, options->texts, options->context);
      const auto quality = runtime::measure_quality(*inputs.transformer, *inputs.autoencoder, inputs.texts,
                                                    terminal_progress(invocation));
      const auto latents = latents_of(invocation, *options, inputs);
      if (!latents) return kInputAtFault;
      const auto format = invocation.options.output.value_or(OutputFormat::text);
      if (format == OutputFormat::text) {
        invocation.out << as_text(inputs, quality) << latents_text(*latents);
        return kDone;
      }
      auto json = described(inputs, quality);
      add_latents(json, *latents);
      invocation.out << render_document(json, format);
      return kDone;
    };
  });
}

}  // namespace proviso::cli

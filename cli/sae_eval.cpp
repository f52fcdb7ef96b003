#include <iomanip>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

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
      "Loss recovered is 1 - (reconstructed - clean) / (mean-ablated - clean), attention sinks left as they are.");
  auto options = std::make_shared<SaeOptions>();
  add_sae_options(*command, *options);
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] {
      const auto inputs = open_sae(invocation, options->folder, options->model, options->texts, options->context);
      const auto quality = runtime::measure_quality(*inputs.transformer, *inputs.autoencoder, inputs.texts,
                                                    terminal_progress(invocation));
      const auto format = invocation.options.output.value_or(OutputFormat::text);
      invocation.out << (format == OutputFormat::text ? as_text(inputs, quality)
                                                      : render_document(described(inputs, quality), format));
      return kDone;
    };
  });
}

}  // namespace proviso::cli

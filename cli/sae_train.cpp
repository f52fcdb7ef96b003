#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <system_error>

#include "cli/output.hpp"
#include "cli/progress.hpp"
#include "cli/sae.hpp"
#include "dsl/transformer_lens.hpp"
#include "runtime/autoencoders/autoencoder_file.hpp"
#include "runtime/autoencoders/trainer.hpp"
#include "runtime/formats/atomic_file.hpp"

namespace proviso::cli {

namespace {

using model::InputError;
using nlohmann::ordered_json;

struct Options {
  std::string model, at, output;
  std::vector<std::string> texts;
  std::int64_t context = 128;
  runtime::TrainingSettings settings{.vectors = 2'000'000};
};

dsl::Site one_site(const std::string& text, const model::ModelCard& card) {
  const auto spec = dsl::parse_site(text);
  const auto one = [](const dsl::IndexSet& set) {
    return !set.all && set.ranges.size() == 1 && set.ranges[0].first == set.ranges[0].last;
  };
  const bool layered = spec && dsl::site_has_layer(spec->kind);
  if (!spec || (layered && !one(spec->layers)) || (spec->heads && !one(*spec->heads)))
    throw InputError("--at " + text + ": name one site\n  help: resid_post[14], mlp_out[3], z[3] head 2, …");
  const dsl::Site site = dsl::canonical(
      {spec->kind, layered ? spec->layers.ranges[0].first : -1, spec->heads ? spec->heads->ranges[0].first : -1});
  if (!dsl::transformer_lens_name(site) || site.kind == dsl::SiteKind::pattern)
    throw InputError("--at " + text +
                     ": SAELens' format has no name for this site\n  help: resid_post[L], mlp_out[L], "
                     "attn_out[L], mlp_post[L] or z[L]");
  runtime::AutoencoderCard wanted;
  wanted.site = wanted.written = site;
  wanted.d_in = wanted.d_out = card.site_width(site);
  if (const auto why = runtime::misfit(wanted, card); !why.empty()) throw InputError("--at " + text + ": " + why);
  return site;
}

ordered_json metadata(const Options& options, const runtime::TextRows& texts, const runtime::Training& training) {
  const auto& s = options.settings;
  ordered_json metadata = {{"context_size", options.context},
                           {"prepend_bos", false},
                           {"training_architecture", runtime::sparsity_name(s.sparsity)},
                           {"training",
                            {{"program", "proviso " PROVISO_VERSION},
                             {"text_sha256", texts.sha256},
                             {"tokens", training.vectors},
                             {"steps", training.steps},
                             {"batch", s.batch},
                             {"k", s.k},
                             {"seed", s.seed},
                             {"learning_rate", training.learning_rate},
                             {"warm_up", s.warm_up},
                             {"decay", s.decay},
                             {"dead_weight", s.dead_weight},
                             {"dead_after", training.dead_after}}}};
  if (s.sparsity == runtime::Sparsity::jumprelu) {
    metadata["training"]["penalty"] = s.penalty;
    metadata["training"]["bandwidth"] = s.bandwidth;
  }
  return metadata;
}

int train(const Invocation& invocation, Options options) {
  while (options.output.size() > 1 && options.output.back() == '/') options.output.pop_back();
  model::require_new_directory(options.output);
  auto& settings = options.settings;
  settings.seed = invocation.options.seed;
  settings.checkpoint = options.output + ".checkpoint";
  const bool begun = std::filesystem::exists(settings.checkpoint);
  if (settings.resume && !begun)
    throw InputError("--resume: there is no " + settings.checkpoint + "\n  help: leave --resume out to begin");
  if (!settings.resume && begun) {
    throw InputError(settings.checkpoint +
                     " is of a training that was stopped\n  help: go on with --resume, or remove the file");
  }
  if (settings.k > settings.latents) throw InputError("--k: of N latents at most N fire");
  if (settings.vectors < settings.batch) {
    throw InputError("--tokens: " + std::to_string(settings.vectors) + " are less than one step's --batch " +
                     std::to_string(settings.batch));
  }
  const auto files = open_model(options.model);
  settings.model_sha256 = files->card.sha256(invocation.options.cache);
  settings.site = one_site(options.at, files->card);
  const auto texts =
      runtime::read_text_rows(options.texts, *files->tokenizer, std::min(options.context, files->card.config.context));
  const auto transformer = load_weights(invocation, *files);
  const auto training = runtime::train_autoencoder(*transformer, texts, settings, terminal_progress(invocation));
  model::write_directory_atomically(options.output, [&](const std::string& temporary) {
    runtime::write_autoencoder(temporary, *training.autoencoder, metadata(options, texts, training));
  });
  std::error_code ignored;
  std::filesystem::remove(settings.checkpoint, ignored);

  const double speed = static_cast<double>(training.trained_here) / training.seconds;
  const ordered_json said = {{"autoencoder", options.output}, {"site", dsl::to_string(settings.site)},
                             {"latents", settings.latents},   {"k", settings.k},
                             {"text_tokens", texts.tokens},   {"tokens", training.vectors},
                             {"steps", training.steps},       {"variance_explained", training.variance_explained},
                             {"dead", training.dead},         {"seconds", training.seconds},
                             {"tokens_per_second", speed}};
  const auto format = invocation.options.output.value_or(OutputFormat::text);
  if (format != OutputFormat::text) {
    invocation.out << render_document(said, format);
    return kDone;
  }
  char text[512];
  std::snprintf(text, sizeof text,
                "%s: %lld latents at %s, trained on %lld tokens (%lld of text) in %.0f s, %.0f tokens/s\n"
                "  variance explained %.4f in training, %lld latents dead\n",
                options.output.c_str(), static_cast<long long>(settings.latents), dsl::to_string(settings.site).c_str(),
                static_cast<long long>(training.vectors), static_cast<long long>(texts.tokens), training.seconds, speed,
                training.variance_explained, static_cast<long long>(training.dead));
  invocation.out << text << "  measure it on other text: proviso sae eval " << options.output << " --model "
                 << options.model << " --text FILE\n";
  return kDone;
}

}  // namespace

void register_sae_train(CLI::App& sae, Invocation& invocation) {
  CLI::App* command = sae.add_subcommand("train", "Train a sparse autoencoder on a model's activations at one site");
  command->footer(
      "Activations are read from the model as training goes, attention sinks left out. The state is kept in\n"
      "DIR.checkpoint; a training that was stopped goes on with --resume to the same result. A batch-topk one is\n"
      "written as jumprelu with its threshold, as SAELens does. --jumprelu learns a threshold for each latent (slower: "
      "all\n"
      "latents are decoded), and --k is then the mean number that is aimed at.");
  auto options = std::make_shared<Options>();
  auto& settings = options->settings;
  add_model_option(*command, options->model);
  command->add_option("--at", options->at, "the site: resid_post[14], mlp_out[3], blocks.14.hook_resid_post, …")
      ->check(kNotEmpty)
      ->type_name("SITE")
      ->required();
  add_text_options(*command, options->texts, options->context);
  command->add_option("--latents", settings.latents, "how many")->check(CLI::Range(1, 10'000'000))->required();
  command->add_option("--k", settings.k, "how many fire at a position")->check(CLI::Range(1, 1'000'000))->required();
  command->add_option("-o", options->output, "the folder to write; an existing one is never overwritten")
      ->check(kNotEmpty)
      ->type_name("DIR")
      ->required();
  auto* batch_topk = command->add_flag_callback(
      "--batch-topk", [&settings] { settings.sparsity = runtime::Sparsity::batch_topk; },
      "k on average over a batch, instead of at each position");
  auto* jumprelu = command->add_flag_callback(
      "--jumprelu", [&settings] { settings.sparsity = runtime::Sparsity::jumprelu; },
      "thresholds that are learnt, for about k on average");
  jumprelu->excludes(batch_topk);
  command->add_option("--penalty", settings.penalty, "of --jumprelu: how much it costs to miss --k")
      ->check(CLI::PositiveNumber)
      ->needs(jumprelu)
      ->capture_default_str();
  command->add_option("--bandwidth", settings.bandwidth, "of --jumprelu: how near a threshold a latent counts for it")
      ->check(CLI::PositiveNumber)
      ->needs(jumprelu)
      ->capture_default_str();
  command
      ->add_option("--tokens", settings.vectors,
                   "positions to train on in all; the text comes round as often as that takes")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--batch", settings.batch, "positions a step")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--learning-rate", settings.learning_rate, "of Adam; 0.001 * sqrt(4096 / latents) unless told")
      ->check(CLI::PositiveNumber);
  command->add_option("--warm-up", settings.warm_up, "share of the steps in which the rate rises")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--decay", settings.decay, "share of the steps in which the rate falls to 0")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--dead-after", settings.dead_after,
                   "positions without firing after which a latent is dead; a tenth of --tokens unless told")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24));  // counted exactly so far
  command->add_option("--dead-weight", settings.dead_weight, "weight of the loss that revives dead latents")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--in-memory", settings.in_memory,
                   "tokens whose activations stand in memory at once; as many as take 1 GiB unless told.\n"
                   "A text that does not fit is read by the model again each time round")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 32));
  command->add_option("--checkpoint-every", settings.checkpoint_seconds, "seconds between two checkpoints")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--resume", settings.resume, "go on with a training that was stopped");
  add_common_options(*command, invocation.options);
  command->callback(
      [options, &invocation] { invocation.action = [options, &invocation] { return train(invocation, *options); }; });
}

}  // namespace proviso::cli

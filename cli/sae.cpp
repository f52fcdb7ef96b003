#include "cli/sae.hpp"

#include <algorithm>

namespace proviso::cli {

SaeInputs open_sae(const Invocation& invocation, const std::string& folder, const std::string& model,
                   const std::vector<std::string>& texts, std::int64_t context) {
  SaeInputs opened;
  opened.card = runtime::read_autoencoder_card(folder);
  opened.files = open_model(model);
  if (const auto why = runtime::misfit(opened.card, opened.files->card); !why.empty())
    throw model::InputError(folder + ": " + why);
  opened.texts =
      runtime::read_text_rows(texts, *opened.files->tokenizer, std::min(context, opened.files->card.config.context));
  opened.transformer = load_weights(invocation, *opened.files);
  opened.autoencoder = runtime::Autoencoder::load(opened.card, opened.transformer->options().device);
  return opened;
}

void add_text_options(CLI::App& command, std::vector<std::string>& texts, std::int64_t& context) {
  command.add_option("--text", texts, "plain text in UTF-8: files, or folders of .txt files")
      ->check(kNotEmpty)
      ->type_name("FILE")
      ->required();
  command.add_option("--context", context, "tokens of text that the model sees at once")
      ->check(CLI::Range(2, 1'000'000))
      ->capture_default_str();
}

void add_sae_options(CLI::App& command, SaeOptions& options) {
  command.add_option("DIR", options.folder, "a folder of SAELens: cfg.json and sae_weights.safetensors")
      ->check(kNotEmpty)
      ->required();
  add_model_option(command, options.model);
  add_text_options(command, options.texts, options.context);
}

void register_sae(CLI::App& program, Invocation& invocation) {
  CLI::App* sae = program.add_subcommand("sae", "Train, measure and read sparse autoencoders, in SAELens' format");
  sae->require_subcommand(1);
  register_sae_train(*sae, invocation);
  register_sae_eval(*sae, invocation);
  register_sae_top(*sae, invocation);
}

}  // namespace proviso::cli

#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.hpp"
#include "cli/models.hpp"
#include "runtime/autoencoders/activations.hpp"
#include "runtime/autoencoders/autoencoder.hpp"

namespace proviso::cli {

// `proviso sae …`, a file each.
void register_sae_train(CLI::App& sae, Invocation& invocation);
void register_sae_eval(CLI::App& sae, Invocation& invocation);
void register_sae_top(CLI::App& sae, Invocation& invocation);

/// An autoencoder on its model, and a text, all loaded.
struct SaeInputs {
  std::unique_ptr<ModelFiles> files;
  runtime::AutoencoderCard card;
  runtime::TextRows texts;
  std::unique_ptr<model::Transformer> transformer;
  std::shared_ptr<const runtime::Autoencoder> autoencoder;
};
/// Throws `InputError` where one is damaged or they do not go together.
SaeInputs open_sae(const Invocation& invocation, const std::string& folder, const std::string& model,
                   const std::vector<std::string>& texts, std::int64_t context);

/// Adds `DIR`, `--model`, `--text` and `--context`.
struct SaeOptions {
  std::string folder, model;
  std::vector<std::string> texts;
  std::int64_t context = 128;
};
void add_sae_options(CLI::App& command, SaeOptions& options);
/// Adds `--text` and `--context` alone.
void add_text_options(CLI::App& command, std::vector<std::string>& texts, std::int64_t& context);

}  // namespace proviso::cli

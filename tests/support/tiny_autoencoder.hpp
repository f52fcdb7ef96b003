#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "runtime/autoencoders/autoencoder_file.hpp"
#include "tests/support/random_model.hpp"

namespace proviso::test {

/// Random weights of an autoencoder for `RandomModel`'s width, 16.
inline runtime::Autoencoder tiny_autoencoder(runtime::AutoencoderCard card) {
  card.d_out = card.d_out ? card.d_out : card.d_in;
  std::uint64_t seed = 20;
  const auto random = [&](const std::vector<std::int64_t>& shape) {
    return (random_tensor(shape, ++seed) * 0.5).to(at::kFloat);
  };
  runtime::Autoencoder::Weights w;
  w.W_enc = random({card.d_sae, card.d_in});
  w.W_dec = random({card.d_sae, card.d_out});
  w.b_enc = random({card.d_sae});
  w.b_dec = random({card.d_out});
  if (card.architecture == runtime::Architecture::jumprelu) w.threshold = random({card.d_sae}).abs();
  if (card.architecture == runtime::Architecture::skip_transcoder) w.W_skip = random({card.d_out, card.d_in});
  if (card.architecture == runtime::Architecture::gated) {
    w.b_gate = random({card.d_sae});
    w.scale_mag = random({card.d_sae}).exp();
  }
  return {std::move(card), std::move(w)};
}

inline runtime::AutoencoderCard tiny_card(runtime::Architecture architecture = runtime::Architecture::jumprelu,
                                          dsl::Site site = {dsl::SiteKind::resid_post, 0, -1}) {
  runtime::AutoencoderCard card;
  card.architecture = architecture;
  card.d_in = card.d_out = 16;
  card.d_sae = 40;
  card.k = 5;
  card.model_name = "tiny";
  card.site = card.written = site;
  card.subtracts_b_dec = !card.is_transcoder();
  return card;
}

/// Writes it as SAELens does and returns the folder.
inline std::string write_tiny_autoencoder(const std::string& folder, const runtime::AutoencoderCard& card) {
  std::filesystem::create_directories(folder);
  runtime::write_autoencoder(folder, tiny_autoencoder(card), nlohmann::ordered_json::object());
  return folder;
}

/// The same as the files of a rule file's folder: the folder's name in their place is `sae`.
inline std::vector<std::pair<std::string, std::string>> tiny_autoencoder_files(const runtime::AutoencoderCard& card) {
  const TemporaryFolder folder;
  write_tiny_autoencoder(folder / "sae", card);
  std::vector<std::pair<std::string, std::string>> files;
  for (const char* name : {"sae/cfg.json", "sae/sae_weights.safetensors"})
    files.emplace_back(name, read_bytes(folder / name));
  return files;
}

}  // namespace proviso::test

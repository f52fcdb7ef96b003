#pragma once

#include <cstdint>
#include <vector>

#include "runtime/autoencoders/activations.hpp"
#include "runtime/autoencoders/autoencoder.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

/// A latent is called dense where it fires at more than this share of positions: it says little of any one of them.
inline constexpr double kDenseShare = 0.1;

/// How well an autoencoder stands for what it reads, on a text. Attention sinks are left out, and stay as they are
/// where losses are measured.
struct AutoencoderQuality {
  std::int64_t rows = 0, tokens = 0;
  std::int64_t positions = 0;     ///< without sinks
  double l0 = 0;                  ///< latents that fire, mean over positions
  double variance_explained = 0;  ///< 1 − Σ‖x − x̂‖² / Σ‖x − mean‖²
  double loss_clean = 0, loss_reconstructed = 0, loss_ablated = 0;  ///< nats a predicted token
  double loss_recovered = 0;
  std::vector<std::int64_t> fired;  ///< positions at which each latent fires

  std::int64_t dead() const;   ///< latents that never fire on this text
  std::int64_t dense() const;  ///< those that fire at more than `kDenseShare` of the positions
};

/// Throws `InputError` where the texts hold no position that counts.
AutoencoderQuality measure_quality(const model::Transformer& transformer, const Autoencoder& autoencoder,
                                   const TextRows& texts, const Progress& progress = {});

}  // namespace proviso::runtime

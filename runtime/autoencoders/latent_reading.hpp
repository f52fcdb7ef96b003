#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "runtime/autoencoders/activations.hpp"
#include "runtime/autoencoders/autoencoder.hpp"
#include "runtime/features/logit_weights.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

/// A place in a text where a latent fires.
struct LatentContext {
  double activation = 0;
  std::vector<std::int64_t> before, after;  ///< tokens around it
  std::int64_t token = 0;
};

/// What can be seen of one latent.
struct LatentReading {
  std::int64_t latent = 0;
  double auroc = std::nan("");  ///< of prompts that should have it against those that should not
  std::int64_t positions = 0, fired = 0;
  double mean = 0, max = 0;             ///< where it fires
  std::vector<LatentContext> contexts;  ///< the strongest, one a row of text
  LogitWeights logits;                  ///< of its decoder row; empty at sites that are not of the stream's width
};

/// How well each latent's largest activation over a prompt's ordinary positions tells `positive` from `negative`
/// prompts: the area under the ROC curve, ties at mid-rank. [latents] float64.
at::Tensor latent_aurocs(const model::Transformer& transformer, const Autoencoder& autoencoder,
                         const std::vector<model::Row>& positive, const std::vector<model::Row>& negative);

/// Latents in the order of Σ activation² · ‖decoder row‖² over a text: how much they have a hand in.
std::vector<std::int64_t> strongest_latents(const model::Transformer& transformer, const Autoencoder& autoencoder,
                                            const TextRows& texts, std::int64_t count);

struct ReadingOptions {
  std::int64_t contexts = 5, window = 12, tokens = 8;
};
std::vector<LatentReading> read_latents(const model::Transformer& transformer, const Autoencoder& autoencoder,
                                        const TextRows& texts, const std::vector<std::int64_t>& latents,
                                        const ReadingOptions& options, const Progress& progress = {});

}  // namespace proviso::runtime

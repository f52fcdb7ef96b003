#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/autoencoders/activations.hpp"
#include "runtime/autoencoders/autoencoder.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

/// What fires of an autoencoder in training. TopK (Gao et al. 2024, arXiv 2406.04093): the k largest latents of each
/// vector; BatchTopK (Bussmann et al. 2024, arXiv 2412.06410): the k · batch largest of a batch, at most 4 k of one
/// vector; JumpReLU (Rajamanoharan et al. 2024, arXiv 2407.14435): those over thresholds of their own, which are learnt
/// by straight-through estimators with a rectangle kernel against the penalty (L0 / k − 1)².
enum class Sparsity { topk, batch_topk, jumprelu };
std::string_view sparsity_name(Sparsity sparsity);  ///< "batchtopk", as SAELens calls its trainers

/// How an autoencoder is trained.
struct TrainingSettings {
  dsl::Site site{};
  std::int64_t latents = 0;
  std::int64_t k = 0;                  ///< of JumpReLU the mean that is aimed at
  Sparsity sparsity = Sparsity::topk;  ///< BatchTopK becomes a jumprelu with one threshold
  double penalty = 1;        ///< of JumpReLU: weight of (L0 / k − 1)², in units of the activations' variance
  double bandwidth = 0.05;   ///< of JumpReLU: the kernel's width, in units of the activations' root mean square
  std::int64_t vectors = 0;  ///< trained on in all, each as often as it comes round
  std::int64_t batch = 2048;
  double learning_rate = 0;       ///< Adam's; 0: 0.001 · √(2^12 / latents)
  double warm_up = 0.05;          ///< share of the steps in which the rate rises from 0
  double decay = 0.2;             ///< share of the steps in which it falls to 0
  double dead_weight = 1.0 / 32;  ///< of the auxiliary loss, in which dead latents explain the error that is left
  std::int64_t dead_after = 0;    ///< vectors without firing, at most 2^24; 0: a tenth of `vectors`, at most 10 million
  std::int64_t in_memory = 0;     ///< tokens whose vectors stand in memory; 0: as many as take 1 GiB
  std::uint64_t seed = 0;
  std::string model_sha256{};  ///< of the model's weight files: a checkpoint is of one model
  std::string checkpoint{};    ///< file that holds the state every few minutes; "" keeps none
  double checkpoint_seconds = 120;
  bool resume = false;  ///< go on from `checkpoint`
};

struct Training {
  std::shared_ptr<const Autoencoder> autoencoder;
  std::int64_t steps = 0, vectors = 0;
  double learning_rate = 0;
  std::int64_t dead_after = 0;
  double variance_explained = 0;  ///< of the last batches, as they were trained on
  std::int64_t dead = 0;          ///< latents that had not fired for `dead_after` vectors at the end
  double seconds = 0;             ///< of this process
  std::int64_t trained_here = 0;  ///< vectors of this process
};

/// Trains on a model's activations at a site, attention sinks left out. Vectors are scaled to a mean square of 1 and
/// the scale is folded back, so that the autoencoder takes them as they are; decoder rows have length 1. The same
/// seed, text, threads and device give the same bytes, with or without a stop in between. Throws `InputError`: too
/// little text, a checkpoint that is of other settings.
Training train_autoencoder(const model::Transformer& transformer, const TextRows& texts,
                           const TrainingSettings& settings, const Progress& progress);

}  // namespace proviso::runtime

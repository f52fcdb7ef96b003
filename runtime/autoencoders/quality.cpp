#include "runtime/autoencoders/quality.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "runtime/autoencoders/splice.hpp"

namespace proviso::runtime {

std::int64_t AutoencoderQuality::dead() const { return std::ranges::count(fired, 0); }

std::int64_t AutoencoderQuality::dense() const {
  const double most = kDenseShare * static_cast<double>(positions);
  return std::ranges::count_if(fired, [&](std::int64_t count) { return static_cast<double>(count) > most; });
}

AutoencoderQuality measure_quality(const model::Transformer& transformer, const Autoencoder& autoencoder,
                                   const TextRows& texts, const Progress& progress) {
  const at::NoGradGuard no_grad;
  constexpr std::int64_t kAtOnce = 512;  // positions whose latents are in memory
  const auto& card = autoencoder.card();
  AutoencoderQuality quality;
  quality.rows = std::ssize(texts.rows);
  quality.tokens = texts.tokens;
  const auto device = autoencoder.weights().W_enc.device();
  auto fired = at::zeros({card.d_sae}, at::device(device).dtype(at::kLong));
  auto sum = at::zeros({card.d_out}, at::kDouble);
  double squares = 0, error = 0;
  each_activation(transformer, card.site, card.written, texts.rows, [&](const SeenActivations& seen) {
    if (progress) progress("encoding", static_cast<std::int64_t>(seen.first_row), quality.rows);
    for (std::int64_t begin = 0; begin < seen.read.size(0); begin += kAtOnce) {
      const auto count = std::min(kAtOnce, seen.read.size(0) - begin);
      const auto x = seen.read.narrow(0, begin, count);
      const auto y = seen.written.narrow(0, begin, count).to(at::kDouble).cpu();
      const auto encoded = autoencoder.encode(x);
      fired += encoded.activations.ne(0).sum(0);
      sum += y.sum(0);
      squares += y.square().sum().item<double>();
      error += (y - autoencoder.decode(x, encoded).to(at::kDouble).cpu()).square().sum().item<double>();
    }
    quality.positions += seen.read.size(0);
  });
  if (quality.positions == 0)
    throw model::InputError("the texts hold no position but attention sinks\n  help: name longer texts");
  const auto n = static_cast<double>(quality.positions);
  quality.variance_explained = 1 - error / (squares - sum.square().sum().item<double>() / n);
  const auto counts = fired.cpu().contiguous();
  quality.fired.assign(counts.const_data_ptr<std::int64_t>(), counts.const_data_ptr<std::int64_t>() + card.d_sae);
  quality.l0 = static_cast<double>(std::accumulate(quality.fired.begin(), quality.fired.end(), std::int64_t{0})) / n;

  if (progress) progress("measuring losses", 0, 0);
  const auto clean = text_losses(transformer, texts.rows);
  const auto spliced = spliced_losses(transformer, autoencoder, texts.rows);
  const auto predicted = static_cast<double>(texts.tokens - quality.rows);
  for (std::size_t i = 0; i < clean.size(); ++i) {
    quality.loss_clean += clean[i] / predicted;
    quality.loss_reconstructed += spliced[i].reconstructed / predicted;
    quality.loss_ablated += spliced[i].ablated / predicted;
  }
  quality.loss_recovered = loss_recovered(clean, spliced);
  if (progress) progress({}, 0, 0);
  return quality;
}

}  // namespace proviso::runtime

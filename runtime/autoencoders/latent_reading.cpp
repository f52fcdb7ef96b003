#include "runtime/autoencoders/latent_reading.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <iterator>

#include "runtime/features/separation.hpp"

namespace proviso::runtime {

namespace {

constexpr std::int64_t kAtOnce = 512;  // positions whose latents are in memory

std::vector<std::int64_t> numbers(const at::Tensor& of) {
  const auto here = of.to(at::kCPU, at::kLong).contiguous();
  return {here.const_data_ptr<std::int64_t>(), here.const_data_ptr<std::int64_t>() + here.numel()};
}

/// The largest activation of every latent over each row's ordinary positions, 0 where there is none: [rows, latents].
at::Tensor peaks(const model::Transformer& transformer, const Autoencoder& autoencoder,
                 const std::vector<model::Row>& rows) {
  const auto& card = autoencoder.card();
  auto result = at::zeros({std::ssize(rows), card.d_sae}, at::kFloat);
  each_activation(transformer, card.site, card.written, rows, [&](const SeenActivations& seen) {
    const auto owners = seen.layout.row_of.index_select(0, seen.packed) + static_cast<std::int64_t>(seen.first_row);
    for (std::int64_t begin = 0; begin < seen.read.size(0); begin += kAtOnce) {
      const auto count = std::min(kAtOnce, seen.read.size(0) - begin);
      const auto f = autoencoder.encode(seen.read.narrow(0, begin, count)).activations.cpu();
      const auto owner = owners.narrow(0, begin, count).cpu().unsqueeze(1).expand_as(f);
      result.scatter_reduce_(0, owner, f, "amax", /*include_self=*/true);
    }
  });
  return result;
}

/// The strongest contexts of one latent, one a row, while a text goes by.
class Contexts {
 public:
  explicit Contexts(std::size_t most) : most_(most) {}

  void offer(double activation, std::size_t row, std::int64_t position) {
    const auto same = std::ranges::find(found_, row, &Found::row);
    if (same != found_.end()) {
      if (activation <= same->activation) return;
      found_.erase(same);
    }
    const auto place = std::ranges::find_if(found_, [&](const Found& found) { return activation > found.activation; });
    found_.insert(place, {activation, row, position});
    if (found_.size() > most_) found_.pop_back();
  }

  std::vector<LatentContext> read(const std::vector<model::Row>& rows, std::int64_t window) const {
    std::vector<LatentContext> contexts;
    for (const auto& found : found_) {
      const auto& tokens = rows[found.row].tokens;
      const auto at = tokens.begin() + found.position;
      LatentContext context;
      context.activation = found.activation;
      context.token = *at;
      context.before.assign(at - std::min<std::int64_t>(window, found.position), at);
      context.after.assign(at + 1, at + 1 + std::min<std::int64_t>(window, tokens.end() - at - 1));
      contexts.push_back(std::move(context));
    }
    return contexts;
  }

 private:
  struct Found {
    double activation = 0;
    std::size_t row = 0;
    std::int64_t position = 0;
  };
  std::size_t most_;
  std::vector<Found> found_;
};

}  // namespace

at::Tensor latent_aurocs(const model::Transformer& transformer, const Autoencoder& autoencoder,
                         const std::vector<model::Row>& positive, const std::vector<model::Row>& negative) {
  const at::NoGradGuard no_grad;
  const auto p = peaks(transformer, autoencoder, positive), q = peaks(transformer, autoencoder, negative);
  return separation(p, q).aurocs;
}

std::vector<std::int64_t> strongest_latents(const model::Transformer& transformer, const Autoencoder& autoencoder,
                                            const TextRows& texts, std::int64_t count) {
  const at::NoGradGuard no_grad;
  const auto& card = autoencoder.card();
  auto energy = at::zeros({card.d_sae}, at::device(autoencoder.weights().W_enc.device()).dtype(at::kDouble));
  each_activation(transformer, card.site, card.written, texts.rows, [&](const SeenActivations& seen) {
    for (std::int64_t begin = 0; begin < seen.read.size(0); begin += kAtOnce) {
      const auto part = seen.read.narrow(0, begin, std::min(kAtOnce, seen.read.size(0) - begin));
      energy += autoencoder.encode(part).activations.square().sum(0);
    }
  });
  // Where activations are in units of the rows' lengths, a unit adds a row of length 1.
  if (!card.rescales_by_decoder_norm) energy = energy * autoencoder.weights().W_dec.square().sum(1);
  return numbers(std::get<1>(energy.topk(std::min(count, card.d_sae))));
}

std::vector<LatentReading> read_latents(const model::Transformer& transformer, const Autoencoder& autoencoder,
                                        const TextRows& texts, const std::vector<std::int64_t>& latents,
                                        const ReadingOptions& options, const Progress& progress) {
  const at::NoGradGuard no_grad;
  const auto& card = autoencoder.card();
  std::vector<LatentReading> readings(latents.size());
  std::vector<Contexts> contexts(latents.size(), Contexts(static_cast<std::size_t>(options.contexts)));
  const auto which = at::tensor(latents, at::kLong).to(autoencoder.weights().W_enc.device());
  each_activation(transformer, card.site, card.written, texts.rows, [&](const SeenActivations& seen) {
    if (progress) progress("reading", static_cast<std::int64_t>(seen.first_row), std::ssize(texts.rows));
    const auto owners = numbers(seen.layout.row_of.index_select(0, seen.packed));
    const auto positions = numbers(seen.layout.positions.index_select(0, seen.packed));
    for (std::int64_t begin = 0; begin < seen.read.size(0); begin += kAtOnce) {
      const auto part = seen.read.narrow(0, begin, std::min(kAtOnce, seen.read.size(0) - begin));
      const auto f = autoencoder.encode(part, which).activations.cpu().contiguous();  // [m, latents]
      const float* values = f.const_data_ptr<float>();
      for (std::int64_t i = 0; i < f.size(0); ++i) {
        const auto at = static_cast<std::size_t>(begin + i);
        for (std::size_t l = 0; l < latents.size(); ++l) {
          const float value = values[static_cast<std::size_t>(i) * latents.size() + l];
          ++readings[l].positions;
          if (value == 0) continue;
          ++readings[l].fired;
          readings[l].mean += value;
          contexts[l].offer(value, seen.first_row + static_cast<std::size_t>(owners[at]), positions[at]);
        }
      }
    }
  });
  const bool of_stream =
      card.d_out == transformer.config().width && dsl::site_width(card.written.kind) == dsl::SiteWidth::stream;
  for (std::size_t l = 0; l < latents.size(); ++l) {
    auto& reading = readings[l];
    reading.latent = latents[l];
    if (reading.fired > 0) reading.mean /= static_cast<double>(reading.fired);
    reading.contexts = contexts[l].read(texts.rows, options.window);
    if (!reading.contexts.empty()) reading.max = reading.contexts.front().activation;
    if (of_stream)
      reading.logits = logit_weights(transformer, autoencoder.decoder_row(latents[l]), card.written, options.tokens);
  }
  if (progress) progress({}, 0, 0);
  return readings;
}

}  // namespace proviso::runtime

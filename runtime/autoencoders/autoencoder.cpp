#include "runtime/autoencoders/autoencoder.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "runtime/autoencoders/sparse_products.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::runtime {

namespace {

using model::InputError;

at::Tensor load_tensor(const AutoencoderCard& card, const char* name, at::Device device) {
  const auto& stored = card.tensor(name);
  const auto values = model::stored_values(stored);
  if (!values.isfinite().all().item<bool>())
    throw InputError(stored.file->path() + ": tensor '" + name + "' holds values that are no numbers; fetch it again");
  return values.to(device);
}

/// f · rows, for activations f [n, latents], none below 0: of what fires alone where that is little.
at::Tensor times_rows(const at::Tensor& f, const at::Tensor& rows) {
  constexpr std::int64_t kDenseFrom = 8;  // of so many latents one fires: then the dense product is as fast
  const std::int64_t most = f.numel() == 0 ? 0 : f.ne(0).sum(1).max().item<std::int64_t>();
  if (most == 0 || most * kDenseFrom > f.size(1)) return f.matmul(rows);
  const auto [values, index] = f.topk(most);
  return sparse_decode(values, index, rows);
}

}  // namespace

std::shared_ptr<const Autoencoder> Autoencoder::load(const AutoencoderCard& card, at::Device device) {
  const auto tensor = [&](const char* name) { return load_tensor(card, name, device); };
  Weights w;
  w.W_enc = tensor("W_enc").t().contiguous();
  w.W_dec = tensor("W_dec");
  w.b_dec = tensor("b_dec");
  if (card.architecture == Architecture::gated) {
    w.b_gate = tensor("b_gate");
    w.b_enc = tensor("b_mag");
    w.scale_mag = tensor("r_mag").exp();
  } else {
    w.b_enc = tensor("b_enc");
  }
  if (card.architecture == Architecture::jumprelu) w.threshold = tensor("threshold");
  if (card.architecture == Architecture::skip_transcoder) w.W_skip = tensor("W_skip");
  return std::make_shared<const Autoencoder>(card, std::move(w));
}

Autoencoder::Autoencoder(AutoencoderCard card, Weights weights) : card_(std::move(card)), weights_(std::move(weights)) {
  if (card_.rescales_by_decoder_norm) decoder_norms_ = weights_.W_dec.norm(2, -1);
}

Autoencoder::Normed Autoencoder::normed(const at::Tensor& x) const {
  constexpr double kEpsilon = 1e-5;
  Normed result{x.to(weights_.W_enc.device(), at::kFloat), {}, {}};
  if (card_.norm == InputNorm::constant_norm_rescale) {
    result.scale = result.x.norm(2, -1, /*keepdim=*/true) / std::sqrt(static_cast<double>(card_.d_in));
    result.x = result.x / result.scale;
  } else if (card_.norm == InputNorm::layer_norm) {
    result.shift = result.x.mean(-1, /*keepdim=*/true);
    result.x = result.x - result.shift;
    result.scale = result.x.std(-1, /*unbiased=*/true, /*keepdim=*/true);
    result.x = result.x / (result.scale + kEpsilon);
  }
  if (card_.is_transcoder()) result.scale = result.shift = at::Tensor();  // its output is of another place
  return result;
}

Autoencoder::Encoded Autoencoder::encode(const at::Tensor& x, const at::Tensor& latents) const {
  const Normed in = normed(x);
  const at::Tensor h = card_.subtracts_b_dec ? in.x - weights_.b_dec : in.x;
  const bool all = card_.architecture == Architecture::topk || !latents.defined();
  const auto asked = [&](const at::Tensor& of) { return all ? of : of.index_select(0, latents); };

  Encoded result;
  if (in.scale.defined()) result.scale = in.scale.squeeze(-1);
  const auto product = h.matmul(asked(weights_.W_enc).t());
  switch (card_.architecture) {
    case Architecture::standard:
    case Architecture::transcoder:
    case Architecture::skip_transcoder:
      result.activations = (product + asked(weights_.b_enc)).relu();
      break;
    case Architecture::jumprelu: {
      const auto before = product + asked(weights_.b_enc);
      result.activations = before.relu() * before.gt(asked(weights_.threshold));
      break;
    }
    case Architecture::gated: {
      const auto open = (product + asked(weights_.b_gate)).gt(0);
      result.activations = open * (product * asked(weights_.scale_mag) + asked(weights_.b_enc)).relu();
      break;
    }
    case Architecture::topk: {
      auto before = product + weights_.b_enc;
      if (decoder_norms_.defined()) before = before * decoder_norms_;
      const auto [values, which] = before.topk(card_.k, -1, /*largest=*/true, /*sorted=*/false);
      result.activations = at::zeros_like(before).scatter_(-1, which, values.relu());
      if (latents.defined()) result.activations = result.activations.index_select(1, latents);
      break;
    }
  }
  return result;
}

at::Tensor Autoencoder::decode(const at::Tensor& x, const Encoded& encoded) const {
  const auto f = decoder_norms_.defined() ? encoded.activations / decoder_norms_ : encoded.activations;
  auto out = times_rows(f, weights_.W_dec) + weights_.b_dec;
  const Normed in = normed(x);
  if (in.scale.defined()) out = out * in.scale;
  if (in.shift.defined()) out = out + in.shift;
  if (weights_.W_skip.defined()) out = out + x.to(out.device(), at::kFloat).matmul(weights_.W_skip.t());
  return out;
}

at::Tensor Autoencoder::reconstruct(const at::Tensor& x) const {
  constexpr std::int64_t kRows = 512;  // of latents in memory: 32 MB at 16,384
  std::vector<at::Tensor> parts;
  for (const auto& part : x.split(kRows)) parts.push_back(decode(part, encode(part)));
  return parts.empty() ? at::empty({0, card_.d_out}, at::kFloat) : at::cat(parts);
}

at::Tensor Autoencoder::decoder_rows() const {
  return decoder_norms_.defined() ? weights_.W_dec / decoder_norms_.unsqueeze(1) : weights_.W_dec;
}

at::Tensor Autoencoder::decoder_row(std::int64_t latent) const {
  const auto row = weights_.W_dec[latent];
  return decoder_norms_.defined() ? row / decoder_norms_[latent] : row;
}

}  // namespace proviso::runtime

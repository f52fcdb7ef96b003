#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "runtime/autoencoders/autoencoder_card.hpp"

namespace proviso::runtime {

/// A sparse autoencoder's weights, and SAELens 6's formulas on them (saes/*_sae.py, saes/transcoder.py), computed in
/// float32 whatever the weights are stored in.
class Autoencoder {
 public:
  struct Weights {
    at::Tensor W_enc;              // [d_sae, d_in]: a latent a row, the transpose of what the file stores
    at::Tensor W_dec;              // [d_sae, d_out]
    at::Tensor b_enc;              // [d_sae]; of gated ones the magnitudes' (b_mag)
    at::Tensor b_dec;              // [d_out]
    at::Tensor threshold;          // [d_sae], of jumprelu
    at::Tensor b_gate, scale_mag;  // [d_sae], of gated; scale_mag = exp(r_mag)
    at::Tensor W_skip;             // [d_out, d_in], of skip transcoders
  };

  /// Reads the weights. Throws `InputError` where one is no number.
  static std::shared_ptr<const Autoencoder> load(const AutoencoderCard& card, at::Device device);
  Autoencoder(AutoencoderCard card, Weights weights);

  const AutoencoderCard& card() const { return card_; }
  const Weights& weights() const { return weights_; }

  struct Encoded {
    at::Tensor activations;  // [n, latents asked for] float32
    /// [n] float32: one unit of a latent adds so many of its decoder rows, as the input's norm is undone. Undefined: 1.
    at::Tensor scale;
  };
  /// Of x [n, d_in], the latents that `latents` (int64) lists; undefined: all. Only the encoder rows asked for are
  /// used, but where the others decide what fires (topk).
  Encoded encode(const at::Tensor& x, const at::Tensor& latents = {}) const;

  /// decode(encode(x)) [n, d_out] float32.
  at::Tensor reconstruct(const at::Tensor& x) const;
  /// The same from activations of all latents that have been computed.
  at::Tensor decode(const at::Tensor& x, const Encoded& encoded) const;

  /// What one unit of a latent adds [d_out], before the input's norm is undone.
  at::Tensor decoder_row(std::int64_t latent) const;
  /// The same of every latent [d_sae, d_out].
  at::Tensor decoder_rows() const;

 private:
  struct Normed {
    at::Tensor x;             // [n, d_in] float32
    at::Tensor scale, shift;  // [n, 1]; undefined where nothing is to be undone
  };
  Normed normed(const at::Tensor& x) const;

  AutoencoderCard card_;
  Weights weights_;
  at::Tensor decoder_norms_;  // [d_sae], of topk that rescales by them
};

}  // namespace proviso::runtime

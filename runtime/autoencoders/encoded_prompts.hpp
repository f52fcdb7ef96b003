#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/autoencoders/autoencoder.hpp"
#include "runtime/autoencoders/splice.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// What an autoencoder reads of prompts, and its latents there. Latents are in units of what one adds to the vector
/// (their activation, with the input's norm undone).
struct EncodedPrompts {
  std::shared_ptr<const Autoencoder> autoencoder;
  at::Tensor mean_x;                             // [prompts, d_in] float32: the mean over ordinary positions
  at::Tensor mean_f;                             // [prompts, d_sae] float32
  at::Tensor last_x;                             // [prompts, d_in] float32: at the last token
  at::Tensor last_f;                             // [prompts, d_sae] float32
  std::vector<std::uint8_t> has_mean, has_last;  ///< by prompt: some position is ordinary, the last one is
};

/// Rows start at position 0. `visitor` gives the hooks that are in force; what they write at the autoencoder's own site
/// is not seen.
EncodedPrompts encode_prompts(const model::Transformer& transformer, std::shared_ptr<const Autoencoder> autoencoder,
                              const std::vector<model::Row>& rows, const VisitorOfRows& visitor = {});

}  // namespace proviso::runtime

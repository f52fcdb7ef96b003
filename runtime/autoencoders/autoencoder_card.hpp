#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/model_card.hpp"

namespace proviso::runtime {

/// How a sparse autoencoder encodes and decodes, by SAELens' names. batchtopk and matryoshka ones are saved as
/// jumprelu.
enum class Architecture { standard, gated, jumprelu, topk, transcoder, skip_transcoder };
std::string_view architecture_name(Architecture architecture);

/// What becomes of a vector before it is encoded, and is undone after decoding.
enum class InputNorm {
  none,
  constant_norm_rescale,  ///< scaled to the length √d_in
  layer_norm,             ///< less its mean, over its unbiased standard deviation + 1e-5
};

/// What the headers of a sparse autoencoder say of it: a folder of SAELens 6 (or of the years before it) with
/// `cfg.json` and `sae_weights.safetensors`. Shapes and types are checked, no weight is read.
struct AutoencoderCard {
  std::string folder;
  Architecture architecture = Architecture::standard;
  std::int64_t d_in = 0, d_sae = 0, d_out = 0;  ///< d_out differs from d_in in transcoders alone
  bool subtracts_b_dec = true;                  ///< `apply_b_dec_to_input`
  InputNorm norm = InputNorm::none;
  /// Trained on inputs that were scaled by a mean which the folder does not tell: SAELens computes as if they were not.
  bool scale_untold = false;
  std::int64_t k = 0;                     ///< of topk
  bool rescales_by_decoder_norm = false;  ///< of topk: activations are in units of the decoder rows' lengths
  std::string model_name, hook_name;
  dsl::Site site;     ///< where it reads; canonical
  dsl::Site written;  ///< where its reconstruction belongs: `site` but in transcoders
  std::vector<model::StoredTensor> tensors;

  bool is_transcoder() const {
    return architecture == Architecture::transcoder || architecture == Architecture::skip_transcoder;
  }
  const model::StoredTensor& tensor(std::string_view name) const;
};

/// Throws `InputError`: what is missing, malformed, of a shape that does not fit, or a field that is not known, by
/// name.
AutoencoderCard read_autoencoder_card(const std::string& folder);

/// Why a model does not have the sites of an autoencoder, at the width that it has been trained on; "" where it does.
std::string misfit(const AutoencoderCard& card, const model::ModelCard& model);

}  // namespace proviso::runtime

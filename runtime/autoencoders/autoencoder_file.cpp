#include "runtime/autoencoders/autoencoder_file.hpp"

#include <ATen/ATen.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "dsl/transformer_lens.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/safetensors.hpp"

namespace proviso::runtime {

namespace {

using Json = nlohmann::ordered_json;

const char* norm_name(const AutoencoderCard& card) {
  if (card.scale_untold) return "expected_average_only_in";
  switch (card.norm) {
    case InputNorm::constant_norm_rescale:
      return "constant_norm_rescale";
    case InputNorm::layer_norm:
      return "layer_norm";
    case InputNorm::none:
      break;
  }
  return "none";
}

Json config(const AutoencoderCard& card, Json metadata) {
  const auto place = [&](const dsl::Site& site, const std::string& key, const std::string& head_key) {
    const auto name = dsl::transformer_lens_name(site);
    if (!name) throw model::InputError("SAELens has no name for " + dsl::to_string(site));
    metadata[key] = *name;
    metadata[head_key] = site.head < 0 ? Json(nullptr) : Json(site.head);
  };
  metadata["model_name"] = card.model_name;
  place(card.site, "hook_name", "hook_head_index");
  if (card.is_transcoder()) place(card.written, "hook_name_out", "hook_head_index_out");
  const bool heads_together = card.site.kind == dsl::SiteKind::z && card.site.head < 0;
  Json json = {{"d_in", card.d_in},
               {"d_sae", card.d_sae},
               {"dtype", "float32"},
               {"device", "cpu"},
               {"apply_b_dec_to_input", card.subtracts_b_dec},
               {"normalize_activations", norm_name(card)},
               {"reshape_activations", heads_together ? "hook_z" : "none"}};
  if (card.is_transcoder()) json["d_out"] = card.d_out;
  if (card.architecture == Architecture::topk) {
    json["k"] = card.k;
    json["rescale_acts_by_decoder_norm"] = card.rescales_by_decoder_norm;
  }
  json["metadata"] = std::move(metadata);
  json["architecture"] = architecture_name(card.architecture);
  return json;
}

}  // namespace

void write_autoencoder(const std::string& folder, const Autoencoder& autoencoder, Json metadata) {
  const auto& w = autoencoder.weights();
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto add = [&](const char* name, const at::Tensor& value) {
    if (value.defined()) tensors.emplace_back(name, value.to(at::kCPU, at::kFloat).contiguous());
  };
  const bool gated = autoencoder.card().architecture == Architecture::gated;
  add("W_enc", w.W_enc.t());
  add("W_dec", w.W_dec);
  add("b_dec", w.b_dec);
  add(gated ? "b_mag" : "b_enc", w.b_enc);
  add("threshold", w.threshold);
  add("b_gate", w.b_gate);
  if (gated) add("r_mag", w.scale_mag.log());
  add("W_skip", w.W_skip);
  std::vector<model::TensorToWrite> written;
  for (const auto& [name, value] : tensors) {
    written.push_back(
        {name, model::ElementType::f32, value.sizes().vec(),
         std::as_bytes(std::span(value.const_data_ptr<float>(), static_cast<std::size_t>(value.numel())))});
  }
  const std::filesystem::path place(folder);
  model::write_safetensors((place / "sae_weights.safetensors").string(), written, {{"format", "pt"}});
  model::write_file_atomically((place / "cfg.json").string(),
                               config(autoencoder.card(), std::move(metadata)).dump(1) + "\n");
}

}  // namespace proviso::runtime

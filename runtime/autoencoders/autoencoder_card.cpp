#include "runtime/autoencoders/autoencoder_card.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <variant>

#include "dsl/transformer_lens.hpp"
#include "runtime/formats/json_text.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/config_keys.hpp"

namespace proviso::runtime {

namespace {

using Json = nlohmann::json;
using model::ConfigKeys;
using model::InputError;

constexpr std::array<std::string_view, 6> kArchitectures = {"standard", "gated",      "jumprelu",
                                                            "topk",     "transcoder", "skip_transcoder"};

Architecture read_architecture(ConfigKeys& keys) {
  const std::string name = keys.text_or("architecture", "standard");
  const auto found = std::ranges::find(kArchitectures, std::string_view(name));
  if (found == kArchitectures.end()) {
    std::string all;
    for (const auto each : kArchitectures) all += (all.empty() ? "" : ", ") + std::string(each);
    keys.refuse("architecture", "is '" + name + "'; autoencoders of " + all + " are read");
  }
  return static_cast<Architecture>(found - kArchitectures.begin());
}

/// The years before SAELens 6 named the activation function instead of the architecture.
void read_old_activation(ConfigKeys& keys, AutoencoderCard& card) {
  const std::string older = keys.text_or("activation_fn_str", "relu");
  const std::string name = keys.text_or("activation_fn", older);
  const Json& arguments = keys.read("activation_fn_kwargs");
  if (name == "relu") return;
  const bool fits = card.architecture == Architecture::standard || card.architecture == Architecture::topk;
  if (name != "topk" || !fits) keys.refuse("activation_fn", "is '" + name + "'; relu and topk are computed");
  card.architecture = Architecture::topk;
  if (!arguments.is_object() || !arguments.contains("k") || !arguments["k"].is_number_unsigned())
    keys.refuse("activation_fn_kwargs", "does not tell `k`, the latents that fire at once");
  card.k = arguments["k"].get<std::int64_t>();
}

void read_norm(ConfigKeys& keys, AutoencoderCard& card) {
  const Json& value = keys.read("normalize_activations");
  if (value.is_boolean()) {  // before SAELens 3
    card.scale_untold = value.get<bool>();
    return;
  }
  const std::string name = keys.text_or("normalize_activations", "none");
  if (name == "constant_norm_rescale") {
    card.norm = InputNorm::constant_norm_rescale;
  } else if (name == "layer_norm") {
    card.norm = InputNorm::layer_norm;
  } else if (name == "expected_average_only_in") {
    card.scale_untold = true;
  } else if (name != "none") {
    keys.refuse("normalize_activations",
                "is '" + name + "'; none, expected_average_only_in, constant_norm_rescale and layer_norm are computed");
  }
}

/// The site that a hook's name and head mean.
dsl::Site read_site(ConfigKeys& keys, const std::string& name_key, const std::string& head_key) {
  const std::string name = keys.text_or(name_key, "");
  const auto head = keys.token(head_key);
  if (name.empty()) keys.refuse(name_key, "is missing: it names the site that the autoencoder reads");
  auto read = dsl::site_from_transformer_lens(name);
  if (const auto* why = std::get_if<dsl::NotEqual>(&read)) keys.refuse(name_key, "is '" + name + "': " + why->reason);
  const auto& spec = std::get<dsl::SiteSpec>(read);
  return dsl::canonical({spec.kind, spec.layers.ranges.front().first, head.value_or(-1)});
}

/// Where the autoencoder belongs: in `metadata`, or beside the rest before SAELens 6.
void read_place(ConfigKeys& keys, AutoencoderCard& card) {
  card.model_name = keys.text_or("model_name", "");
  const bool old = !keys.read("hook_point").is_null();
  const std::string name_key = old ? "hook_point" : "hook_name";
  card.hook_name = keys.text_or(name_key, "");
  card.site = read_site(keys, name_key, old ? "hook_point_head_index" : "hook_head_index");
  card.written = card.is_transcoder() ? read_site(keys, "hook_name_out", "hook_head_index_out") : card.site;
}

struct Expected {
  std::string_view name;
  std::vector<std::int64_t> shape;
};

std::vector<Expected> expected_tensors(const AutoencoderCard& c) {
  std::vector<Expected> tensors = {{"W_enc", {c.d_in, c.d_sae}}, {"W_dec", {c.d_sae, c.d_out}}, {"b_dec", {c.d_out}}};
  const auto per_latent = [&](std::string_view name) { tensors.push_back({name, {c.d_sae}}); };
  if (c.architecture == Architecture::gated) {
    per_latent("b_gate");
    per_latent("b_mag");
    per_latent("r_mag");
  } else {
    per_latent("b_enc");
  }
  if (c.architecture == Architecture::jumprelu) per_latent("threshold");
  if (c.architecture == Architecture::skip_transcoder) tensors.push_back({"W_skip", {c.d_out, c.d_in}});
  return tensors;
}

void read_tensors(AutoencoderCard& card) {
  const std::string path = (std::filesystem::path(card.folder) / "sae_weights.safetensors").string();
  auto file = model::read_safetensors(path);
  std::set<std::string> known;
  for (const auto& [name, shape] : expected_tensors(card)) {
    known.emplace(name);
    const auto found = std::ranges::find(file.tensors, name, &model::StoredTensor::name);
    if (found == file.tensors.end()) {
      throw InputError(path + ": holds no tensor '" + std::string(name) + "' of floating-point numbers, which a " +
                       std::string(architecture_name(card.architecture)) + " autoencoder has");
    }
    if (found->shape != shape) {
      throw InputError(path + ": tensor '" + std::string(name) + "' has the shape " + model::shape_text(found->shape) +
                       ", and cfg.json says " + model::shape_text(shape));
    }
  }
  for (const auto& tensor : file.tensors) {
    if (!known.contains(tensor.name))
      throw InputError(path + ": tensor '" + tensor.name + "' is not one of a " +
                       std::string(architecture_name(card.architecture)) + " autoencoder");
  }
  if (!file.unread.empty())
    throw InputError(path + ": tensor '" + file.unread.begin()->first + "' of type " + file.unread.begin()->second +
                     " is not one of an autoencoder");
  card.tensors = std::move(file.tensors);
}

}  // namespace

std::string_view architecture_name(Architecture architecture) {
  return kArchitectures[static_cast<std::size_t>(architecture)];
}

const model::StoredTensor& AutoencoderCard::tensor(std::string_view name) const {
  return *std::ranges::find(tensors, name, &model::StoredTensor::name);
}

AutoencoderCard read_autoencoder_card(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / "cfg.json").string();
  const auto file = model::MappedFile::open(path);
  const Json json = model::parse_json_object(file->text(), path);
  AutoencoderCard card;
  card.folder = folder;
  ConfigKeys keys(json, path);
  card.architecture = read_architecture(keys);
  card.d_in = keys.size("d_in");
  card.d_sae = keys.size("d_sae");
  card.d_out = card.is_transcoder() ? keys.size("d_out") : card.d_in;
  card.subtracts_b_dec = keys.flag_or("apply_b_dec_to_input", !card.is_transcoder());
  if (card.is_transcoder() && card.subtracts_b_dec)
    keys.refuse("apply_b_dec_to_input", "is true, which a transcoder cannot be");
  read_norm(keys, card);
  read_old_activation(keys, card);
  if (card.architecture == Architecture::topk) {
    if (card.k == 0) card.k = keys.size("k");
    keys.admit("k", "");
    if (card.k < 1 || card.k > card.d_sae) keys.refuse("k", "must lie between 1 and d_sae");
    card.rescales_by_decoder_norm = keys.flag_or("rescale_acts_by_decoder_norm", false);
  }
  keys.admit("finetuning_scaling_factor", "[false, null]");
  const std::string reshape = keys.text_or("reshape_activations", "none");
  const Json& metadata = keys.read("metadata");
  if (metadata.is_object()) {
    ConfigKeys place(metadata, path, "metadata.");
    read_place(place, card);  // what else metadata says is of the training
  } else {
    read_place(keys, card);
  }
  if (reshape != "none" && reshape != "hook_z") keys.refuse("reshape_activations", "is '" + reshape + "'");
  if (reshape == "hook_z" && (card.site.kind != dsl::SiteKind::z || card.site.head >= 0))
    keys.refuse("reshape_activations", "is 'hook_z', and the site is " + dsl::to_string(card.site));
#define PROVISO_AUTOENCODER_FIELD(name) keys.admit(name, "");
#include "runtime/autoencoders/autoencoder_fields.def"
#undef PROVISO_AUTOENCODER_FIELD
  keys.finish();
  read_tensors(card);
  return card;
}

std::string misfit(const AutoencoderCard& card, const model::ModelCard& model) {
  const auto of_site = [&](const dsl::Site& site, std::int64_t width) -> std::string {
    const std::string name = "the autoencoder belongs to " + dsl::to_string(site) + ", and ";
    if (const auto why = model.missing_site(site.kind); !why.empty()) return name + why;
    if (dsl::site_has_layer(site.kind) && site.layer >= model.config.layers)
      return name + model.name + " has " + std::to_string(model.config.layers) + " layers";
    if (site.head >= 0 && site.head >= model.site_heads(site.kind))
      return name + model.name + " has " + std::to_string(model.site_heads(site.kind)) + " heads there";
    if (const auto has = model.site_width(site); has != width)
      return name + model.name + " has " + std::to_string(has) + " elements there where the autoencoder takes " +
             std::to_string(width);
    return "";
  };
  if (auto why = of_site(card.site, card.d_in); !why.empty()) return why;
  if (auto why = of_site(card.written, card.d_out); !why.empty()) return why;
  if (dsl::reached_before(card.written, card.site))
    return "the autoencoder writes " + dsl::to_string(card.written) + " before it reads " + dsl::to_string(card.site);
  return "";
}

}  // namespace proviso::runtime

#include "runtime/model/model_writer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/json_text.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/family.hpp"

namespace proviso::model {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::json;

constexpr const char* kGenerationConfig = "generation_config.json";

at::ScalarType scalar_type(ElementType type) {
  switch (type) {
    case ElementType::f32:
      return at::kFloat;
    case ElementType::f16:
      return at::kHalf;
    case ElementType::bf16:
      return at::kBFloat16;
    default:
      throw std::invalid_argument("a model cannot be written as " + std::string(element_type_name(type)));
  }
}

/// As a config.json names it.
std::string type_word(ElementType type) {
  switch (type) {
    case ElementType::f16:
      return "float16";
    case ElementType::bf16:
      return "bfloat16";
    default:
      return "float32";
  }
}

std::string text_of_file(const std::string& path) { return std::string(MappedFile::open(path)->text()); }

/// Every tensor that a file of this configuration holds, in the file's own orientation. A bias that the
/// configuration has only because another layer got one is zero.
std::vector<std::pair<std::string, at::Tensor>> tensors_to_write(const Transformer& transformer,
                                                                 const ModelConfig& config, at::ScalarType type) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const TensorSpec& spec : family_table(config.family).tensors) {
    if (!spec.present(config)) continue;
    const std::int64_t copies = spec.layered() ? config.layers : 1;
    for (std::int64_t layer = 0; layer < copies; ++layer) {
      const std::string name = at_layer(spec.name, layer);
      at::Tensor value = transformer.get(name);
      if (!value.defined()) value = at::zeros(spec.shape(config));
      if (spec.storage == Storage::conv1d) value = value.t();
      tensors.emplace_back(name, value.detach().to(at::kCPU, type).contiguous());
    }
  }
  return tensors;
}

Json rope_scaling(const RopeScaling& rope) {
  switch (rope.kind) {
    case RopeScaling::Kind::none:
      return nullptr;
    case RopeScaling::Kind::linear:
      return {{"rope_type", "linear"}, {"factor", rope.factor}};
    case RopeScaling::Kind::llama3:
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", rope.original_context}};
  }
  return nullptr;
}

/// The least share of a head that the reference, which cuts off fractions, takes for `rotary_width` elements.
double rotary_share(const ModelConfig& config) {
  const auto head_dim = static_cast<double>(config.head_dim), width = static_cast<double>(config.rotary_width);
  const double share = width / head_dim;
  return share * head_dim < width ? std::nextafter(share, 1.0) : share;
}

Json token_id(const std::optional<std::int64_t>& id) { return id ? Json(*id) : Json(nullptr); }

/// A config.json for a model that came without one.
Json new_config(const ModelConfig& config) {
  Json json = {{"model_type", family_name(config.family)},
               {"vocab_size", config.vocabulary},
               {"bos_token_id", token_id(config.bos)},
               {"eos_token_id", token_id(config.eos)}};
  switch (config.family) {
    case Family::llama:
    case Family::mistral:
    case Family::qwen2:
    case Family::qwen3:
      json.update({{"hidden_size", config.width},
                   {"num_hidden_layers", config.layers},
                   {"num_attention_heads", config.heads},
                   {"num_key_value_heads", config.kv_heads},
                   {"head_dim", config.head_dim},
                   {"intermediate_size", config.neurons},
                   {"max_position_embeddings", config.context},
                   {"rms_norm_eps", config.norm_eps},
                   {"rope_theta", config.rope_theta},
                   {"rope_scaling", rope_scaling(config.rope)},
                   {"hidden_act", "silu"}});
      if (config.family == Family::mistral) json["sliding_window"] = nullptr;  // absent, it would be 4096
      break;
    case Family::gemma2:
      break;  // never comes without one
    case Family::gpt_neox:
      json.update({{"hidden_size", config.width},
                   {"num_hidden_layers", config.layers},
                   {"num_attention_heads", config.heads},
                   {"intermediate_size", config.neurons},
                   {"max_position_embeddings", config.context},
                   {"layer_norm_eps", config.norm_eps},
                   {"rotary_emb_base", config.rope_theta},
                   {"rotary_pct", rotary_share(config)},
                   {"rope_scaling", rope_scaling(config.rope)},
                   {"use_parallel_residual", config.parallel_blocks},
                   {"hidden_act", "gelu"}});
      break;
    case Family::gpt2:
      json.update({{"n_embd", config.width},
                   {"n_layer", config.layers},
                   {"n_head", config.heads},
                   {"n_inner", config.neurons},
                   {"n_positions", config.context},
                   {"layer_norm_epsilon", config.norm_eps},
                   {"activation_function", "gelu_new"}});
      break;
  }
  return json;
}

Json config_json(const ModelCard& card, const ModelConfig& config, ElementType type) {
  Json json = card.format == SourceFormat::hugging_face
                  ? parse_json_object(text_of_file(card.config_file), card.config_file)
                  : new_config(config);
  json["architectures"] = Json::array({family_table(config.family).architecture});
  json["tie_word_embeddings"] = config.tied_embeddings;
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] = type_word(type);
  const auto asks = [&](Presence presence) {
    return std::ranges::any_of(family_table(config.family).tensors,
                               [&](const TensorSpec& spec) { return spec.presence == presence; });
  };
  if (asks(Presence::attention_bias)) json["attention_bias"] = config.attention_bias;
  if (asks(Presence::mlp_bias)) json["mlp_bias"] = config.mlp_bias;
  return json;
}

/// The source's own generation defaults, or the first and last token, without which generation would not end.
std::string generation_config(const ModelCard& card, const ModelConfig& config) {
  const fs::path own = fs::path(card.config_file).replace_filename(kGenerationConfig);
  if (!card.config_file.empty() && fs::exists(own)) return text_of_file(own.string());
  const Json json = {{"bos_token_id", token_id(config.bos)}, {"eos_token_id", token_id(config.eos)}};
  return json.dump(2) + "\n";
}

}  // namespace

ModelConfig config_now(const Transformer& transformer) {
  ModelConfig config = transformer.config();
  const FamilyTable& table = family_table(config.family);
  const auto has_any = [&](Presence presence) {
    return std::ranges::any_of(table.tensors, [&](const TensorSpec& spec) {
      if (spec.presence != presence) return false;
      for (std::int64_t layer = 0; layer < config.layers; ++layer) {
        if (transformer.get(at_layer(spec.name, layer)).defined()) return true;
      }
      return false;
    });
  };
  config.tied_embeddings = transformer.tied();
  config.attention_bias = has_any(Presence::attention_bias);
  config.mlp_bias = has_any(Presence::mlp_bias);
  return config;
}

ElementType writable_type(const ModelCard& card) {
  const ElementType first = card.tensors.front().stored.type;
  const bool shared =
      std::ranges::all_of(card.tensors, [&](const CardTensor& tensor) { return tensor.stored.type == first; });
  return shared && block_elements(first) == 1 ? first : ElementType::f32;
}

void write_model_files(const Transformer& transformer, const Tokenizer& tokenizer, const std::string& directory,
                       ElementType type) {
  const fs::path folder(directory);
  const ModelCard& card = transformer.card();
  const ModelConfig config = config_now(transformer);

  const auto tensors = tensors_to_write(transformer, config, scalar_type(type));
  std::vector<TensorToWrite> written;
  for (const auto& [name, tensor] : tensors) {
    const std::span values(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes());
    written.push_back({name, type, tensor.sizes().vec(), values});
  }
  write_safetensors((folder / "model.safetensors").string(), written, {{"format", "pt"}});

  write_file_atomically((folder / "config.json").string(), config_json(card, config, type).dump(2) + "\n");
  write_file_atomically((folder / kGenerationConfig).string(), generation_config(card, config));
  for (const auto& [name, bytes] : tokenizer.files()) write_file_atomically((folder / name).string(), bytes);
}

}  // namespace proviso::model

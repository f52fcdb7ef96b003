#pragma once

#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "runtime/formats/safetensors.hpp"
#include "runtime/model/family.hpp"
#include "tests/support/gguf_builder.hpp"
#include "tests/support/temporary_folder.hpp"

namespace proviso::test {

/// A model small enough to be written in a test: names and shapes from the family's table, values that tell
/// every element from the others.
struct TinyModel {
  struct Tensor {
    const model::TensorSpec* spec;
    std::int64_t layer;
    std::vector<std::int64_t> shape;  // [out, in]
    std::vector<float> values;
  };
  model::ModelConfig config;
  nlohmann::json json;  ///< its config.json
  std::vector<Tensor> tensors;

  const Tensor& at(model::TensorRole role, std::int64_t layer = 0) const {
    for (const Tensor& tensor : tensors) {
      if (tensor.spec->role == role && tensor.layer == layer) return tensor;
    }
    throw std::out_of_range("the tiny model has no such tensor");
  }
};

inline nlohmann::json tiny_llama_json() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", 16},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"intermediate_size", 24},
          {"vocab_size", 40},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}

inline nlohmann::json tiny_gpt2_json() {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"n_embd", 16},
          {"n_layer", 2},
          {"n_head", 4},
          {"n_positions", 32},
          {"vocab_size", 40},
          {"layer_norm_epsilon", 1e-5},
          {"activation_function", "gelu_new"}};
}

/// Of the other families, as llama's with what differs.
inline nlohmann::json tiny_json(const std::string& family) {
  if (family == "llama") return tiny_llama_json();
  if (family == "gpt2") return tiny_gpt2_json();
  nlohmann::json json = tiny_llama_json();
  json["model_type"] = family;
  if (family == "mistral") json.update({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", nullptr}});
  if (family == "qwen2") json["architectures"] = {"Qwen2ForCausalLM"};
  if (family == "qwen3") json.update({{"architectures", {"Qwen3ForCausalLM"}}, {"head_dim", 4}});
  if (family == "gemma2") {
    json.update({{"architectures", {"Gemma2ForCausalLM"}}, {"head_dim", 4}, {"query_pre_attn_scalar", 8}});
    json.erase("hidden_act");
  }
  if (family == "gpt_neox") {
    return {{"architectures", {"GPTNeoXForCausalLM"}},
            {"model_type", "gpt_neox"},
            {"hidden_size", 16},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 4},
            {"intermediate_size", 24},
            {"vocab_size", 40},
            {"max_position_embeddings", 64},
            {"layer_norm_eps", 1e-5},
            {"rotary_pct", 0.5},
            {"hidden_act", "gelu"}};
  }
  return json;
}

inline TinyModel tiny_model(const nlohmann::json& json) {
  TinyModel model{.config = model::read_hugging_face_config(json.dump(), "config.json"), .json = json, .tensors = {}};
  float next = -0.5f;
  for (const model::TensorSpec& spec : model::family_table(model.config.family).tensors) {
    if (!spec.present(model.config)) continue;
    for (std::int64_t layer = 0; layer < (spec.layered() ? model.config.layers : 1); ++layer) {
      TinyModel::Tensor tensor{&spec, layer, spec.shape(model.config), {}};
      tensor.values.resize(static_cast<std::size_t>(*model::element_count(tensor.shape)));
      for (float& value : tensor.values) value = next = next > 0.5f ? -0.5f : next + 0.0009765625f;
      model.tensors.push_back(std::move(tensor));
    }
  }
  return model;
}

inline std::vector<float> transposed(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  std::vector<float> result;
  for (std::int64_t column = 0; column < columns; ++column) {
    for (std::int64_t row = 0; row < rows; ++row)
      result.push_back(values[static_cast<std::size_t>(row * columns + column)]);
  }
  return result;
}

/// As Hugging Face stores it: Conv1D weights are [in, out].
inline TinyModel::Tensor as_hugging_face(TinyModel::Tensor tensor) {
  if (tensor.spec->storage == model::Storage::conv1d) {
    tensor.values = transposed(tensor.values, tensor.shape[0], tensor.shape[1]);
    std::swap(tensor.shape[0], tensor.shape[1]);
  }
  return tensor;
}

inline void write_tensors(const std::string& path, const std::vector<TinyModel::Tensor>& tensors,
                          const std::string& drop_prefix = "") {
  std::vector<TinyModel::Tensor> stored;
  for (const TinyModel::Tensor& tensor : tensors) stored.push_back(as_hugging_face(tensor));
  std::vector<model::TensorToWrite> written;
  for (const TinyModel::Tensor& tensor : stored) {
    std::string name = model::at_layer(tensor.spec->name, tensor.layer);
    if (name.starts_with(drop_prefix)) name.erase(0, drop_prefix.size());
    written.push_back({name, model::ElementType::f32, tensor.shape, std::as_bytes(std::span(tensor.values))});
  }
  model::write_safetensors(path, written, {{"format", "pt"}});
}

inline void write_hugging_face(const TinyModel& model, const std::string& folder) {
  write_bytes(folder + "/config.json", model.json.dump(1));
  write_tensors(folder + "/model.safetensors", model.tensors);
}

/// Rows of each head from (first half, second half) to interleaved pairs, as llama.cpp's converter stores q and k.
inline std::vector<float> interleaved(const TinyModel::Tensor& tensor, std::int64_t head_dim) {
  const std::int64_t columns = tensor.shape.size() == 2 ? tensor.shape[1] : 1, half = head_dim / 2;
  std::vector<float> result(tensor.values.size());
  for (std::int64_t row = 0; row < tensor.shape[0]; ++row) {
    const std::int64_t head = row / head_dim, place = row % head_dim;
    const std::int64_t to = head * head_dim + (place < half ? 2 * place : 2 * (place - half) + 1);
    std::memcpy(&result[static_cast<std::size_t>(to * columns)],
                &tensor.values[static_cast<std::size_t>(row * columns)],
                static_cast<std::size_t>(columns) * sizeof(float));
  }
  return result;
}

/// Rows of a fused map from those of each head in turn to all queries, keys, values, as llama.cpp's converter does.
inline std::vector<float> joined_by_kind(const TinyModel::Tensor& tensor, std::int64_t head_dim) {
  const std::int64_t columns = tensor.shape.size() == 2 ? tensor.shape[1] : 1, all = tensor.shape[0] / 3;
  std::vector<float> result(tensor.values.size());
  for (std::int64_t row = 0; row < tensor.shape[0]; ++row) {
    const std::int64_t head = row / (3 * head_dim), kind = row / head_dim % 3, place = row % head_dim;
    std::memcpy(&result[static_cast<std::size_t>((kind * all + head * head_dim + place) * columns)],
                &tensor.values[static_cast<std::size_t>(row * columns)],
                static_cast<std::size_t>(columns) * sizeof(float));
  }
  return result;
}

inline GgufBuilder gguf_of(const TinyModel& model) {
  const model::ModelConfig& config = model.config;
  const model::FamilyTable& family = model::family_table(config.family);
  const std::string prefix(family.gguf_name);
  const auto number = [&](const char* key, std::int64_t value) {
    return std::pair(prefix + key, static_cast<std::uint32_t>(value));
  };
  GgufBuilder builder;
  builder.set("general.architecture", prefix.c_str());
  builder.set("general.name", "Tiny");
  for (const auto& [key, value] :
       {number(".block_count", config.layers), number(".embedding_length", config.width),
        number(".feed_forward_length", config.neurons), number(".context_length", config.context),
        number(".attention.head_count", config.heads)}) {
    builder.set(key, value);
  }
  const auto eps = static_cast<float>(config.norm_eps);
  if (family.positions == model::Positions::rotary) {
    builder.set(prefix + ".attention.head_count_kv", static_cast<std::uint32_t>(config.kv_heads));
    builder.set(prefix + ".rope.dimension_count", static_cast<std::uint32_t>(config.rotary_width));
    builder.set(prefix + ".rope.freq_base", static_cast<float>(config.rope_theta));
  }
  builder.set(prefix + (family.norm == model::NormKind::rms ? ".attention.layer_norm_rms_epsilon"
                                                            : ".attention.layer_norm_epsilon"),
              eps);
  if (config.family == model::Family::gpt_neox) builder.set(prefix + ".use_parallel_residual", config.parallel_blocks);
  builder.set("tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "a", "b"});
  builder.set("tokenizer.ggml.bos_token_id", 1u);
  for (const TinyModel::Tensor& tensor : model.tensors) {
    const std::vector<float> values = tensor.spec->rows == model::Rows::rotary ? interleaved(tensor, config.head_dim)
                                      : tensor.spec->rows == model::Rows::by_head
                                          ? joined_by_kind(tensor, config.head_dim)
                                          : tensor.values;
    const auto bytes = std::as_bytes(std::span(values));
    builder.tensor(model::at_layer(tensor.spec->gguf_name, tensor.layer), tensor.shape, 0,
                   std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  return builder;
}

}  // namespace proviso::test

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/model_config.hpp"

namespace proviso::model {

/// What a tensor is to the body. The norms' gains carry no suffix; a family lacks the roles it does not use.
enum class TensorRole {
  token_embedding,
  position_embedding,
  attention_norm,
  attention_norm_bias,
  query,
  query_bias,
  key,
  key_bias,
  value,
  value_bias,
  query_key_value,  ///< one fused map
  query_key_value_bias,
  query_norm,  ///< of each head's queries, between the map and the rotary embedding
  key_norm,
  attention_out,
  attention_out_bias,
  attention_post_norm,  ///< between the map and the stream
  mlp_norm,
  mlp_norm_bias,
  gate,
  gate_bias,
  up,
  up_bias,
  down,
  down_bias,
  mlp_post_norm,
  final_norm,
  final_norm_bias,
  unembedding,
};

/// A size of a tensor, as a symbol.
enum class Dimension { none, width, head, queries, keys, queries_keys_values, neurons, vocabulary, context };
std::int64_t size_of(Dimension dimension, const ModelConfig& config);

/// When a model has a tensor: ever, or where its configuration has such biases, or an unembedding of its own.
enum class Presence { always, attention_bias, mlp_bias, untied };
enum class Storage { linear, conv1d };
/// The order of a map's rows that belong to heads. `rotary`: a GGUF file has the rotary pairs of each head interleaved.
/// `by_head`, of a fused map: queries, keys and values of the first head, then of the next, where GGUF files, and
/// `plain` everywhere, have those of all heads: queries, then keys, then values.
enum class Rows { plain, rotary, by_head };

enum class NormKind { rms, rms_above_one, layer };  ///< rms_above_one: the gain is 1 + what is stored
enum class Activation { silu, gelu, gelu_tanh };
enum class Positions { rotary, table };
enum class MlpKind { plain, gated };  ///< down(act(up x)), or down(act(gate x) · up x)

struct TensorSpec {
  TensorRole role;
  std::string_view name;  ///< Hugging Face's; `{}` is the layer: "model.layers.{}.mlp.down_proj.weight"
  std::string_view gguf_name;
  Dimension out;
  Dimension in;  ///< none for a vector
  Presence presence;
  Storage storage;  ///< in a Hugging Face file; GGUF files are always linear
  Rows rows;

  bool layered() const { return name.find("{}") != std::string_view::npos; }
  bool present(const ModelConfig& config) const;
  std::vector<std::int64_t> shape(const ModelConfig& config) const;  ///< [out, in], or [out]
};

/// "model.layers.{}.mlp.down_proj.weight", 3 -> "model.layers.3.mlp.down_proj.weight"
std::string at_layer(std::string_view name, std::int64_t layer);

/// All that tells one family from another; the rows are in families.def.
struct FamilyTable {
  Family family;
  std::string_view name;          ///< config.json's `model_type`
  std::string_view gguf_name;     ///< GGUF's `general.architecture`; "" where that is another family's, or not read
  std::string_view architecture;  ///< "LlamaForCausalLM"
  std::string_view base_prefix;   ///< left out of every name in files of the bare base model
  NormKind norm;
  Activation activation;
  Positions positions;
  MlpKind mlp;
  std::vector<TensorSpec> tensors;
  std::vector<std::string_view> buffers;  ///< names that files may hold and no computation needs

  const TensorSpec* find(TensorRole role) const;
  /// The Hugging Face name; "" where the family has no such role. `layer` is ignored where the role has none.
  std::string name_of(TensorRole role, std::int64_t layer = 0) const;
};

const FamilyTable& family_table(Family family);
std::optional<Family> family_from_name(std::string_view name);
std::optional<Family> family_from_gguf_name(std::string_view name);

}  // namespace proviso::model

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/formats/gguf.hpp"

namespace proviso::model {

enum class Family {
#define PROVISO_FAMILY(family, ...) family,
#include "runtime/model/families.def"
};
std::string_view family_name(Family family);

/// Frequencies of the rotary embedding.
struct RopeScaling {
  enum class Kind { none, linear, llama3 } kind = Kind::none;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  std::int64_t original_context = 8192;
};

/// The numbers that define a decoder-only transformer; sizes in elements. Every key of the source's own
/// configuration has been handled or is known to be harmless (`read_*_config` refuse the others by name).
struct ModelConfig {
  Family family = Family::llama;
  std::int64_t layers = 0;
  std::int64_t width = 0;  ///< of the residual stream
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t neurons = 0;  ///< of one MLP
  std::int64_t vocabulary = 0;
  /// Most tokens in one sequence. Where a sliding window is shorter than what the model was made for, the window: up to
  /// there it hides nothing.
  std::int64_t context = 0;
  double norm_eps = 1e-5;
  double rope_theta = 10000;
  RopeScaling rope;
  std::int64_t rotary_width = 0;  ///< so many elements of each head, from the first, are turned by their position
  bool parallel_blocks = false;   ///< attention and MLP both read what enters the layer: there is no resid_mid
  double embedding_scale = 1;     ///< of the token embedding, on its way to the stream
  double query_scale = 1;         ///< of the queries, beside 1/√head_dim
  double attention_cap = 0;       ///< scores become cap · tanh(score / cap); 0: they stay
  double logits_cap = 0;          ///< likewise
  bool tied_embeddings = false;
  bool attention_bias = false;  ///< of the attention's maps, where the family leaves it to the configuration
  bool mlp_bias = false;
  std::optional<std::int64_t> bos, eos;

  std::int64_t query_width() const { return heads * head_dim; }
  std::int64_t kv_width() const { return kv_heads * head_dim; }
};

/// The rotary_width / 2 frequencies of the rotary embedding, scaled; in float32 as the reference computes them.
std::vector<float> rope_frequencies(const ModelConfig& config);

/// From the text of a config.json. Throws `InputError` naming `path` and every key that cannot be honoured.
ModelConfig read_hugging_face_config(std::string_view json, const std::string& path);

/// The tensor of a GGUF file that holds what the rotary frequencies are divided by (llama3's scaling).
inline constexpr std::string_view kRopeDivisors = "rope_freqs.weight";

/// From GGUF metadata and the tensors present (ties and biases are told by those alone).
ModelConfig read_gguf_config(const GgufFile& file, const std::string& path);

}  // namespace proviso::model

#include "runtime/model/model_config.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "runtime/formats/json_text.hpp"
#include "runtime/model/config_keys.hpp"
#include "runtime/model/family.hpp"

namespace proviso::model {

namespace {

using Json = nlohmann::json;

/// The names of families in config.json, or in GGUF files.
std::string families_read(bool gguf) {
  std::string names;
  const auto add = [&](const std::string& name) { names += (names.empty() || name.empty() ? "" : ", ") + name; };
#define PROVISO_FAMILY(family, gguf_name, ...) add(gguf ? gguf_name : #family);
#include "runtime/model/families.def"
  return names;
}

Family read_family(ConfigKeys& keys, const std::string& key, bool gguf) {
  const std::string name = keys.text_or(key, "");
  const std::optional<Family> family = gguf ? family_from_gguf_name(name) : family_from_name(name);
  if (!family) keys.refuse(key, "is '" + name + "'; models of the families " + families_read(gguf) + " are read");
  return *family;
}

/// What no single key tells: sizes that must agree with each other.
void check_sizes(const ModelConfig& config, const std::string& source) {
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) throw InputError(source + ": " + what);
  };
  require(config.query_width() <= INT32_MAX, "the attention heads are too wide");
  require(config.heads % config.kv_heads == 0, std::to_string(config.heads) + " attention heads cannot share " +
                                                   std::to_string(config.kv_heads) + " key-value heads");
  if (family_table(config.family).positions == Positions::rotary) {
    require(config.rotary_width % 2 == 0 && config.rotary_width > 0 && config.rotary_width <= config.head_dim,
            std::to_string(config.rotary_width) + " elements of heads of " + std::to_string(config.head_dim) +
                " have no rotary pairs");
  }
}

std::int64_t head_dim_of(const ModelConfig& config, const std::string& source) {
  if (config.width % config.heads != 0) {
    throw InputError(source + ": a width of " + std::to_string(config.width) + " does not split into " +
                     std::to_string(config.heads) + " heads");
  }
  return config.width / config.heads;
}

void check_llama3(const RopeScaling& rope, const ConfigKeys& keys) {
  if (rope.low_freq_factor >= rope.high_freq_factor) keys.refuse("high_freq_factor", "must be above 'low_freq_factor'");
}

/// How many elements of a head a share of it is, as the reference counts.
std::int64_t share_of_head(double share, const ModelConfig& config) {
  return static_cast<std::int64_t>(share * static_cast<double>(config.head_dim));
}

/// `rope_scaling`, or `rope_parameters` in newer files, which hold the base and the share of each head as well.
void read_rope(const Json& object, const std::string& source, const std::string& key, ModelConfig& config) {
  if (object.is_null()) return;
  if (!object.is_object()) throw InputError(source + ": '" + key + "' must be an object");
  ConfigKeys keys(object, source, key + ".");
  const std::string old_name = keys.text_or("type", "default");
  const std::string name = keys.text_or("rope_type", old_name);
  if (object.contains("type") && name != old_name) keys.refuse("type", "contradicts 'rope_type'");
  config.rope_theta = keys.number_or("rope_theta", config.rope_theta);
  if (object.contains("partial_rotary_factor"))
    config.rotary_width = share_of_head(keys.number("partial_rotary_factor"), config);
  RopeScaling& rope = config.rope;
  if (name == "linear") {
    rope.kind = RopeScaling::Kind::linear;
    rope.factor = keys.number("factor");
  } else if (name == "llama3") {
    rope.kind = RopeScaling::Kind::llama3;
    rope.factor = keys.number("factor");
    rope.low_freq_factor = keys.number("low_freq_factor");
    rope.high_freq_factor = keys.number("high_freq_factor");
    rope.original_context = keys.size("original_max_position_embeddings");
    check_llama3(rope, keys);
  } else if (name != "default") {
    keys.refuse("rope_type", "is '" + name + "'; default, linear and llama3 are computed");
  }
  keys.finish();
}

/// A sliding window hides the tokens before it, so texts no longer than it are computed as without one.
void bound_context(ModelConfig& config, std::int64_t window) { config.context = std::min(config.context, window); }

/// The window of the layers that have one: Mistral's all, Gemma's every other, Qwen's from some layer on, or those of
/// `layer_types`.
void read_window(ConfigKeys& keys, ModelConfig& config) {
  constexpr std::int64_t kOtherwise = 4096, kFirstLayerOtherwise = 28;  // what the reference takes for absent keys
  const Json& types = keys.read("layer_types");
  const auto names = [&](const char* name) { return std::count(types.begin(), types.end(), Json(name)); };
  const std::int64_t sliding = names("sliding_attention");
  if (names("full_attention") + sliding != std::ssize(types)) {
    keys.refuse("layer_types", "names other layers than full_attention and sliding_attention");
  }
  if (config.family == Family::llama) {
    if (sliding > 0) keys.refuse("layer_types", "names other layers than full_attention");
    return;
  }
  const Json& stated = keys.read("sliding_window");
  const bool absent = !keys.holds("sliding_window");
  if (config.family == Family::mistral || (config.family == Family::gemma2 && (types.is_null() || sliding > 0))) {
    if (absent || !stated.is_null()) bound_context(config, keys.size_or("sliding_window", kOtherwise));
    return;
  }
  if (config.family == Family::gemma2) return;  // no layer slides
  const bool used = keys.flag_or("use_sliding_window", false);
  const bool slides =
      types.is_null() ? config.layers > keys.size_or("max_window_layers", kFirstLayerOtherwise) : sliding > 0;
  if (slides && used && (absent || !stated.is_null())) {
    bound_context(config, keys.size_or("sliding_window", kOtherwise));
  } else if (sliding > 0) {
    keys.refuse("layer_types", "names sliding_attention, and no window is in use");
  }
  keys.admit("max_window_layers", "");
}

/// llama, and the families that differ from it in biases, norms of q and k, and windows.
void read_llama(ConfigKeys& keys, const std::string& source, ModelConfig& config) {
  const bool llama = config.family == Family::llama, qwen3 = config.family == Family::qwen3;
  config.width = keys.size("hidden_size");
  config.layers = keys.size("num_hidden_layers");
  config.heads = keys.size("num_attention_heads");
  // The reference's sizes for absent keys are of its first published model.
  config.kv_heads = llama ? keys.size_or("num_key_value_heads", config.heads) : keys.size("num_key_value_heads");
  const bool computed = keys.read("head_dim").is_null() && !qwen3;
  config.head_dim = config.rotary_width = computed ? head_dim_of(config, source) : keys.size("head_dim");
  config.neurons = keys.size("intermediate_size");
  config.context = keys.size("max_position_embeddings");
  config.norm_eps = keys.number_or("rms_norm_eps", 1e-6);
  config.rope_theta = keys.number_or("rope_theta", 10000);
  for (const char* key : {"rope_scaling", "rope_parameters"}) read_rope(keys.read(key), source, key, config);
  if (llama || qwen3) config.attention_bias = keys.flag_or("attention_bias", false);
  if (llama) config.mlp_bias = keys.flag_or("mlp_bias", false);
  config.tied_embeddings = keys.flag_or("tie_word_embeddings", false);
  keys.admit("hidden_act", R"(["silu", "swish"])");
  read_window(keys, config);
}

void read_gemma2(ConfigKeys& keys, ModelConfig& config) {
  config.width = keys.size("hidden_size");
  config.layers = keys.size("num_hidden_layers");
  config.heads = keys.size("num_attention_heads");
  config.kv_heads = keys.size("num_key_value_heads");
  config.head_dim = config.rotary_width = keys.size("head_dim");
  config.neurons = keys.size("intermediate_size");
  config.context = keys.size("max_position_embeddings");
  config.norm_eps = keys.number_or("rms_norm_eps", 1e-6);
  config.rope_theta = keys.number_or("rope_theta", 10000);
  config.attention_bias = keys.flag_or("attention_bias", false);
  config.tied_embeddings = keys.flag_or("tie_word_embeddings", true);
  config.embedding_scale = std::sqrt(static_cast<double>(config.width));
  config.query_scale = std::sqrt(static_cast<double>(config.head_dim) / keys.number_or("query_pre_attn_scalar", 256));
  const auto cap = [&](const char* key, double otherwise) {
    if (keys.holds(key) && keys.read(key).is_null()) return 0.0;
    return keys.number_or(key, otherwise);
  };
  config.attention_cap = cap("attn_logit_softcapping", 50);
  config.logits_cap = cap("final_logit_softcapping", 30);
  read_window(keys, config);
  for (const char* key : {"hidden_act", "hidden_activation"}) keys.admit(key, R"(["gelu_pytorch_tanh"])");
  keys.admit("use_bidirectional_attention", "[null, false]");
  keys.admit("cache_implementation", "");
  keys.admit("sliding_window_size", "");  // an older word, which the reference does not read
}

void read_gpt_neox(ConfigKeys& keys, const std::string& source, ModelConfig& config) {
  config.width = keys.size("hidden_size");
  config.layers = keys.size("num_hidden_layers");
  config.heads = config.kv_heads = keys.size("num_attention_heads");
  config.head_dim = head_dim_of(config, source);
  config.neurons = keys.size("intermediate_size");
  config.context = keys.size("max_position_embeddings");
  config.norm_eps = keys.number_or("layer_norm_eps", 1e-5);
  // Newer files say both in other words, too, and some in these alone.
  config.rope_theta = keys.number_or("rope_theta", keys.number_or("rotary_emb_base", 10000));
  config.rotary_width =
      share_of_head(keys.number_or("partial_rotary_factor", keys.number_or("rotary_pct", 0.25)), config);
  for (const char* key : {"rope_scaling", "rope_parameters"}) read_rope(keys.read(key), source, key, config);
  config.parallel_blocks = keys.flag_or("use_parallel_residual", true);
  config.attention_bias = keys.flag_or("attention_bias", true);
  config.tied_embeddings = keys.flag_or("tie_word_embeddings", false);
  keys.admit("hidden_act", R"(["gelu"])");
}

void read_gpt2(ConfigKeys& keys, const std::string& source, ModelConfig& config) {
  config.width = keys.size("n_embd");
  config.layers = keys.size("n_layer");
  config.heads = config.kv_heads = keys.size("n_head");
  config.head_dim = head_dim_of(config, source);
  config.neurons = keys.size_or("n_inner", 4 * config.width);
  config.context = keys.size("n_positions");
  config.norm_eps = keys.number_or("layer_norm_epsilon", 1e-5);
  config.tied_embeddings = keys.flag_or("tie_word_embeddings", true);
  keys.admit("activation_function", R"(["gelu_new", "gelu_pytorch_tanh"])");
  keys.admit("n_ctx", "[" + std::to_string(config.context) + "]");
}

Json as_json(const GgufValue& value) {
  return std::visit(
      [](const auto& held) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(held)>, GgufArray>) {
          Json list = Json::array();
          for (const GgufValue& item : held) list.push_back(as_json(item));
          return list;
        } else {
          return held;
        }
      },
      value.value);
}

const StoredTensor* find_tensor(const GgufFile& file, std::string_view name) {
  const auto found = std::find_if(file.tensors.begin(), file.tensors.end(),
                                  [&](const StoredTensor& tensor) { return tensor.name == name; });
  return found == file.tensors.end() ? nullptr : &*found;
}

/// llama.cpp keeps llama3's scaling as one divisor a frequency, without the four numbers that make it. They
/// are found again among those that published models use; divisors that none of them gives are refused.
RopeScaling recognise_llama3(const StoredTensor& divisors, ModelConfig config, const std::string& source) {
  const std::string where = source + ": tensor '" + divisors.name + "'";
  const std::int64_t count = divisors.elements();
  if (count != config.rotary_width / 2) throw InputError(where + " has the wrong size " + shape_text(divisors.shape));
  std::vector<float> given(static_cast<std::size_t>(count));
  dequantize(divisors, given);

  config.rope = {};
  const std::vector<float> plain = rope_frequencies(config);
  const auto gives = [&](const RopeScaling& rope) {
    config.rope = rope;
    const std::vector<float> scaled = rope_frequencies(config);
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (!(std::abs(plain[i] / scaled[i] - given[i]) <= 1e-5f * given[i])) return false;
    }
    return true;
  };
  if (gives({})) return {};
  RopeScaling rope{.kind = RopeScaling::Kind::llama3, .factor = given.back()};
  for (rope.original_context = 1024; rope.original_context <= 131072; rope.original_context *= 2) {
    if (gives(rope)) return rope;
  }
  throw InputError(where +
                   " scales the rotary embedding in a way that is not known; use the model's Hugging Face files");
}

void read_gguf_rope(ConfigKeys& keys, const GgufFile& file, const std::string& source, ModelConfig& config) {
  config.rope_theta = keys.number_or("rope.freq_base", 10000);
  const std::string scaling = keys.text_or("rope.scaling.type", "none");
  const double old_factor = keys.number_or("rope.scale_linear", 1);
  const double factor = keys.number_or("rope.scaling.factor", old_factor);
  keys.admit("rope.scaling.original_context_length", "");
  keys.admit("rope.scaling.finetuned", "");
  keys.admit("rope.scaling.attn_factor", "[1.0]");
  if (config.family == Family::gpt_neox) config.rotary_width = keys.size("rope.dimension_count");
  keys.admit("rope.dimension_count", "[" + std::to_string(config.head_dim) + "]");
  if (scaling != "none" && scaling != "linear")
    keys.refuse("rope.scaling.type", "is '" + scaling + "'; none and linear are computed");
  if (scaling == "linear" || factor != 1) config.rope = {.kind = RopeScaling::Kind::linear, .factor = factor};

  if (const StoredTensor* divisors = find_tensor(file, kRopeDivisors)) {
    if (config.rope.kind != RopeScaling::Kind::none)
      keys.refuse("rope.scaling.type", "comes together with the tensor '" + std::string(kRopeDivisors) + "'");
    config.rope = recognise_llama3(*divisors, config, source);
  }
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config) {
  const RopeScaling& rope = config.rope;
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < config.rotary_width; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(config.rotary_width);
    const float frequency = 1.0f / std::pow(static_cast<float>(config.rope_theta), exponent);
    const auto factor = static_cast<float>(rope.factor);
    switch (rope.kind) {
      case RopeScaling::Kind::none:
        frequencies.push_back(frequency);
        break;
      case RopeScaling::Kind::linear:
        frequencies.push_back(frequency / factor);
        break;
      case RopeScaling::Kind::llama3: {
        // Long waves are stretched by the factor, short ones left alone, those between in part.
        const auto context = static_cast<float>(rope.original_context);
        const auto low = static_cast<float>(rope.low_freq_factor), high = static_cast<float>(rope.high_freq_factor);
        const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
        const float smooth = std::clamp((context / wavelength - low) / (high - low), 0.0f, 1.0f);
        frequencies.push_back((1 - smooth) * (frequency / factor) + smooth * frequency);
        break;
      }
    }
  }
  return frequencies;
}

ModelConfig read_hugging_face_config(std::string_view text, const std::string& path) {
  const Json json = parse_json_object(text, path);
  ConfigKeys keys(json, path);
  ModelConfig config;
  config.family = read_family(keys, "model_type", /*gguf=*/false);
  keys.admit("architectures", R"([null, [], [")" + std::string(family_table(config.family).architecture) + R"("]])");
  config.vocabulary = keys.size("vocab_size");
  config.bos = keys.token("bos_token_id");
  config.eos = keys.token("eos_token_id");
  switch (config.family) {
    case Family::llama:
    case Family::mistral:
    case Family::qwen2:
    case Family::qwen3:
      read_llama(keys, path, config);
      break;
    case Family::gemma2:
      read_gemma2(keys, config);
      break;
    case Family::gpt_neox:
      read_gpt_neox(keys, path, config);
      break;
    case Family::gpt2:
      read_gpt2(keys, path, config);
      break;
  }
#define PROVISO_HARMLESS_KEY(key, admitted) keys.admit(key, admitted);
#include "runtime/model/harmless_keys.def"
#undef PROVISO_HARMLESS_KEY
  keys.finish();
  check_sizes(config, path);
  return config;
}

ModelConfig read_gguf_config(const GgufFile& file, const std::string& path) {
  Json general = Json::object();
  for (const auto& [key, value] : file.metadata) {
    if (!key.starts_with("tokenizer.")) general[key] = as_json(value);
  }
  ConfigKeys of_file(general, path);
  ModelConfig config;
  config.family = read_family(of_file, "general.architecture", /*gguf=*/true);
  if (of_file.text_or("general.type", "model") != "model") of_file.refuse("general.type", "is not 'model'");
  if (const Json& parts = of_file.read("split.count"); !parts.is_null() && parts != 0 && parts != 1) {
    of_file.refuse("split.count", "says that this is one of several parts; join them first (llama-gguf-split --merge)");
  }

  const FamilyTable& table = family_table(config.family);
  const std::string prefix = std::string(table.gguf_name) + ".";
  Json own = Json::object();
  for (const auto& [key, value] : general.items()) {
    if (key.starts_with(prefix)) own[key.substr(prefix.size())] = value;
  }

  ConfigKeys keys(own, path, prefix);
  config.layers = keys.size("block_count");
  config.width = keys.size("embedding_length");
  config.neurons = keys.size("feed_forward_length");
  config.context = keys.size("context_length");
  config.heads = keys.size("attention.head_count");
  config.kv_heads = keys.size_or("attention.head_count_kv", config.heads);
  config.head_dim =
      keys.read("attention.key_length").is_null() ? head_dim_of(config, path) : keys.size("attention.key_length");
  keys.admit("attention.value_length", "[" + std::to_string(config.head_dim) + "]");
  config.norm_eps =
      keys.number(table.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon");
  config.rotary_width = config.head_dim;
  if (config.family == Family::gpt_neox) {
    if (keys.read("use_parallel_residual").is_null()) keys.refuse("use_parallel_residual", "is missing");
    config.parallel_blocks = keys.flag_or("use_parallel_residual", true);
  }
  if (table.positions == Positions::rotary) read_gguf_rope(keys, file, path, config);
  keys.admit("attention.causal", "[true]");
  keys.admit("expert_count", "[0]");
  keys.admit("expert_used_count", "[0]");
  keys.admit("tensor_data_layout", R"(["Meta AI original pth"])");
  const std::int64_t vocabulary = keys.size_or("vocab_size", 0);
  keys.finish();

  const StoredTensor* embedding = find_tensor(file, table.find(TensorRole::token_embedding)->gguf_name);
  if (!embedding || embedding->shape.size() != 2)
    throw InputError(path + ": the tensor of the token embedding is missing");
  config.vocabulary = vocabulary ? vocabulary : embedding->shape[0];
  const auto stores_any = [&](Presence presence) {
    return std::any_of(table.tensors.begin(), table.tensors.end(), [&](const TensorSpec& spec) {
      return spec.presence == presence && find_tensor(file, at_layer(spec.gguf_name, 0));
    });
  };
  config.tied_embeddings = !stores_any(Presence::untied);
  config.attention_bias = stores_any(Presence::attention_bias);
  config.mlp_bias = stores_any(Presence::mlp_bias);
  const auto token = [&](const std::string& key) -> std::optional<std::int64_t> {
    const GgufValue* value = file.find(key);
    const auto* id = value ? std::get_if<std::int64_t>(&value->value) : nullptr;
    return id ? std::optional(*id) : std::nullopt;
  };
  config.bos = token("tokenizer.ggml.bos_token_id");
  config.eos = token("tokenizer.ggml.eos_token_id");
  check_sizes(config, path);
  return config;
}

}  // namespace proviso::model

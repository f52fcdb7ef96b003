#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "runtime/model/family.hpp"
#include "runtime/model/model_card.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tiny_model.hpp"

using namespace proviso::model;
using namespace proviso::test;
using proviso::dsl::SiteKind;

namespace {

const std::string kFixtures = PROVISO_SOURCE_DIR "/tests/parity/formats/";

std::string refusal(const std::string& path) {
  try {
    read_model_card(path);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

/// What is said about a llama (or gpt2) configuration with one key changed.
std::string refusal_of(nlohmann::json json, const std::string& key, const nlohmann::json& value) {
  json[key] = value;
  try {
    read_hugging_face_config(json.dump(), "config.json");
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

std::vector<float> values_of(const CardTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.stored.elements()));
  dequantize(tensor.stored, values);
  return values;
}

}  // namespace

TEST_CASE("a Hugging Face directory gives its card") {
  TemporaryFolder folder;
  const TinyModel tiny = tiny_model(tiny_llama_json());
  write_hugging_face(tiny, folder / "tiny");
  const ModelCard card = read_model_card((folder / "tiny") + "/");
  CHECK(card.name == "tiny");
  CHECK(card.format == SourceFormat::hugging_face);
  CHECK(card.config.family == Family::llama);
  CHECK(card.config.head_dim == 4);
  CHECK(card.config.bos == 1);
  CHECK(card.tensors.size() == tiny.tensors.size());
  CHECK(card.parameters == 40 * 16 * 2 + 16 + 2 * (2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16));
  CHECK(card.weight_files == std::vector{folder / "tiny/model.safetensors"});
  const CardTensor* query = card.find("model.layers.1.self_attn.q_proj.weight");
  REQUIRE(query);
  CHECK(values_of(*query) == tiny.at(TensorRole::query, 1).values);
  CHECK_FALSE(query->transposed);
  CHECK_FALSE(query->rotary_permuted);
  CHECK(card.sha256("") == read_model_card(folder / "tiny/model.safetensors").sha256(""));

  CHECK(card.site_width({SiteKind::resid_post, 1, -1}) == 16);
  CHECK(card.site_width({SiteKind::k, 1, -1}) == 8);
  CHECK(card.site_width({SiteKind::k, 1, 1}) == 4);
  CHECK(card.site_width({SiteKind::mlp_post, 0, -1}) == 24);
  CHECK(card.site_width({SiteKind::logits, -1, -1}) == 40);
  CHECK(card.site_width({SiteKind::pattern, 0, -1}) == 0);
  CHECK(card.site_heads(SiteKind::q) == 4);
  CHECK(card.site_heads(SiteKind::v) == 2);
  CHECK(card.site_heads(SiteKind::mlp_out) == 0);
  CHECK(card.missing_site(SiteKind::resid_mid).empty());
}

TEST_CASE("weights may be spread over files, or saved from the bare model") {
  TemporaryFolder folder;
  const TinyModel tiny = tiny_model(tiny_llama_json());
  write_bytes(folder / "sharded/config.json", tiny.json.dump());
  const auto middle = tiny.tensors.begin() + 7;
  write_tensors(folder / "sharded/model-2.safetensors", {middle, tiny.tensors.end()});
  write_tensors(folder / "sharded/model-1.safetensors", {tiny.tensors.begin(), middle});
  nlohmann::json map;
  for (auto tensor = tiny.tensors.begin(); tensor != tiny.tensors.end(); ++tensor) {
    map[at_layer(tensor->spec->name, tensor->layer)] = tensor < middle ? "model-1.safetensors" : "model-2.safetensors";
  }
  const std::string index = folder / "sharded/model.safetensors.index.json";
  write_bytes(index, nlohmann::json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
  const ModelCard card = read_model_card(folder / "sharded");
  CHECK(card.tensors.size() == tiny.tensors.size());
  CHECK(card.weight_files ==
        std::vector{folder / "sharded/model-1.safetensors", folder / "sharded/model-2.safetensors"});

  map["lm_head.weight"] = "../elsewhere.safetensors";
  write_bytes(index, nlohmann::json{{"weight_map", map}}.dump());
  CHECK_THAT(refusal(folder / "sharded"), Catch::Contains("in the same folder"));
  map["lm_head.weight"] = "model-1.safetensors";
  write_bytes(index, nlohmann::json{{"weight_map", map}}.dump());
  CHECK_THAT(refusal(folder / "sharded"),
             Catch::Contains("'lm_head.weight'") && Catch::Contains("model-1.safetensors"));
  map["lm_head.weight"] = "model-2.safetensors";
  write_bytes(index, nlohmann::json{{"weight_map", map}}.dump());
  std::filesystem::remove(folder / "sharded/model-2.safetensors");
  CHECK_THAT(refusal(folder / "sharded"), Catch::Contains("model-2.safetensors") && Catch::Contains("No such file"));

  nlohmann::json tied = tiny_llama_json();
  tied["tie_word_embeddings"] = true;
  const TinyModel bare = tiny_model(tied);
  write_bytes(folder / "bare/config.json", bare.json.dump());
  write_tensors(folder / "bare/model.safetensors", bare.tensors, "model.");
  CHECK(read_model_card(folder / "bare").find("model.layers.0.mlp.up_proj.weight"));
}

TEST_CASE("a GGUF file gives the card of the same model") {
  TemporaryFolder folder;
  const TinyModel tiny = tiny_model(tiny_llama_json());
  write_bytes(folder / "tiny.gguf", gguf_of(tiny).bytes());
  const ModelCard card = read_model_card(folder / "tiny.gguf");
  CHECK(card.name == "tiny");
  CHECK(card.format == SourceFormat::gguf);
  CHECK(card.config.layers == 2);
  CHECK(card.config.kv_heads == 2);
  CHECK(card.config.vocabulary == 40);
  CHECK_FALSE(card.config.tied_embeddings);
  CHECK_FALSE(card.config.attention_bias);
  CHECK(card.config.norm_eps == Approx(1e-5));
  CHECK(card.config.bos == 1);
  CHECK(card.find("model.layers.1.self_attn.k_proj.weight")->rotary_permuted);
  CHECK_FALSE(card.find("model.layers.1.self_attn.v_proj.weight")->rotary_permuted);
  CHECK(values_of(*card.find("lm_head.weight")) == tiny.at(TensorRole::unembedding).values);

  nlohmann::json json = tiny_llama_json();
  json["tie_word_embeddings"] = json["attention_bias"] = json["mlp_bias"] = true;
  write_bytes(folder / "biased.gguf", gguf_of(tiny_model(json)).bytes());
  const ModelCard biased = read_model_card(folder / "biased.gguf");
  CHECK(biased.config.tied_embeddings);
  CHECK(biased.config.attention_bias);
  CHECK(biased.config.mlp_bias);
  CHECK(biased.find("model.layers.0.self_attn.q_proj.bias")->rotary_permuted);
}

TEST_CASE("GPT-2 stores its maps transposed in Hugging Face files, and not in GGUF") {
  TemporaryFolder folder;
  const TinyModel tiny = tiny_model(tiny_gpt2_json());
  write_hugging_face(tiny, folder / "tiny");
  write_bytes(folder / "tiny.gguf", gguf_of(tiny).bytes());
  const ModelCard card = read_model_card(folder / "tiny");
  const CardTensor* fused = card.find("transformer.h.1.attn.c_attn.weight");
  REQUIRE(fused);
  CHECK(fused->transposed);
  CHECK(fused->stored.shape == std::vector<std::int64_t>{16, 48});
  // A square weight, whose orientation no shape tells.
  CHECK(card.find("transformer.h.1.attn.c_proj.weight")->transposed);
  CHECK_FALSE(card.find("transformer.wte.weight")->transposed);
  CHECK(card.config.neurons == 64);
  CHECK(card.config.tied_embeddings);

  const ModelCard gguf = read_model_card(folder / "tiny.gguf");
  const CardTensor* square = gguf.find("transformer.h.1.attn.c_proj.weight");
  REQUIRE(square);
  CHECK_FALSE(square->transposed);
  CHECK(values_of(*square) == tiny.at(TensorRole::attention_out, 1).values);
  CHECK(gguf.parameters == card.parameters);

  // As the first published files have it: no prefix, the causal mask among the weights.
  std::vector<float> mask(32 * 32, 1);
  std::vector<TensorToWrite> tensors{
      {"h.0.attn.bias", ElementType::f32, {1, 1, 32, 32}, std::as_bytes(std::span(mask))}};
  const SafetensorsFile file = read_safetensors(folder / "tiny/model.safetensors");
  for (const StoredTensor& tensor : file.tensors) {
    tensors.push_back(
        {tensor.name.substr(std::string("transformer.").size()), tensor.type, tensor.shape, tensor.bytes});
  }
  write_bytes(folder / "old/config.json", tiny.json.dump());
  write_safetensors(folder / "old/model.safetensors", tensors);
  CHECK(read_model_card(folder / "old").parameters == card.parameters);
}

TEST_CASE("tensors that are missing, misshapen or unknown are refused by name") {
  TemporaryFolder folder;
  TinyModel tiny = tiny_model(tiny_llama_json());
  const auto refused = [&](const std::string& part) {
    write_hugging_face(tiny, folder / "tiny");
    CHECK_THAT(refusal(folder / "tiny"), Catch::Contains(part));
  };
  tiny.json["intermediate_size"] = 25;
  refused("'model.layers.0.mlp.gate_proj.weight' has the shape [24, 16], the configuration says [25, 16]");
  tiny.json["intermediate_size"] = 24;
  tiny.json["num_hidden_layers"] = 1;
  refused("'model.layers.1.input_layernorm.weight' is not part of this configuration");
  tiny.json["num_hidden_layers"] = 2147483647;
  refused("'model.layers.2.input_layernorm.weight' is missing");
  tiny.json["num_hidden_layers"] = 2;
  tiny.json["attention_bias"] = true;
  refused("'model.layers.0.self_attn.q_proj.bias' is missing");
  tiny.json["attention_bias"] = false;
  tiny.json["tie_word_embeddings"] = true;
  refused("'lm_head.weight' differs from 'model.embed_tokens.weight'");
  tiny.tensors.back().values = tiny.tensors.front().values;
  write_hugging_face(tiny, folder / "tiny");
  CHECK(read_model_card(folder / "tiny").find("lm_head.weight") == nullptr);
}

TEST_CASE("what is no model says what one is") {
  TemporaryFolder folder;
  CHECK_THAT(refusal(folder / "absent"), Catch::Contains("no such file"));
  CHECK_THAT(refusal(folder.path().string()), Catch::Contains("config.json"));
  write_bytes(folder / "x.bin", "x");
  CHECK_THAT(refusal(folder / "x.bin"), Catch::Contains("is no model"));
  write_bytes(folder / "y/config.json", tiny_llama_json().dump());
  write_bytes(folder / "y/pytorch_model.bin", "x");
  CHECK_THAT(refusal(folder / "y"), Catch::Contains("convert the weights to safetensors"));
}

TEST_CASE("every configuration that transformers writes is understood") {
  const ModelConfig llama = read_hugging_face_config(read_bytes(kFixtures + "llama_config.json"), "config.json");
  CHECK(llama.width == 4096);
  CHECK(llama.head_dim == 128);
  CHECK(llama.norm_eps == 1e-6);
  CHECK_FALSE(llama.tied_embeddings);
  const ModelConfig gpt2 = read_hugging_face_config(read_bytes(kFixtures + "gpt2_config.json"), "config.json");
  CHECK(gpt2.neurons == 3072);
  CHECK(gpt2.context == 1024);
  CHECK(gpt2.tied_embeddings);
}

TEST_CASE("a configuration key that would change the model is refused by name") {
  const auto llama = [](const char* key, const nlohmann::json& value, const char* part) {
    CHECK_THAT(refusal_of(tiny_llama_json(), key, value), Catch::Contains(key) && Catch::Contains(part));
  };
  const auto gpt2 = [](const char* key, const nlohmann::json& value, const char* part) {
    CHECK_THAT(refusal_of(tiny_gpt2_json(), key, value), Catch::Contains(key) && Catch::Contains(part));
  };
  llama("logit_scale", 0.5, "is not known");
  llama("sliding_window", 4096, "not computed");
  llama("hidden_act", "gelu", "not computed");
  llama("pretraining_tp", 2, "not computed");
  llama("quantization_config", {{"bits", 4}}, "not computed");
  llama("architectures", {"MistralForCausalLM"}, "not computed");
  llama("layer_types", {"sliding_attention"}, "full_attention");
  llama("model_type", "mixtral",
        "'mixtral'; models of the families llama, gpt2, mistral, qwen2, qwen3, gpt_neox, gemma2 are read");
  llama("rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}, "'yarn'");
  llama("rope_scaling", {{"rope_type", "linear"}}, "rope_scaling.factor");
  llama("rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}, {"extra", 1}}, "rope_scaling.extra");
  llama("rope_scaling", {{"rope_type", "linear"}, {"type", "llama3"}, {"factor", 2.0}}, "contradicts");
  llama("hidden_size", 0, "positive whole number");
  llama("hidden_size", 16.5, "positive whole number");
  llama("hidden_size", 18446744073709551615u, "positive whole number");
  llama("hidden_size", nullptr, "is missing");
  llama("rms_norm_eps", -1, "positive number");
  llama("attention_bias", "yes", "true or false");
  CHECK_THAT(refusal_of(tiny_llama_json(), "num_attention_heads", 3), Catch::Contains("does not split"));
  CHECK_THAT(refusal_of(tiny_llama_json(), "num_key_value_heads", 3), Catch::Contains("cannot share"));
  CHECK_THAT(refusal_of(tiny_llama_json(), "head_dim", 5), Catch::Contains("no rotary pairs"));
  CHECK_THAT(refusal_of(tiny_llama_json(), "head_dim", 2147483647), Catch::Contains("too wide"));
  gpt2("activation_function", "relu", "not computed");
  gpt2("scale_attn_by_inverse_layer_idx", true, "not computed");
  gpt2("reorder_and_upcast_attn", true, "not computed");
  gpt2("n_ctx", 1024, "not computed");
  gpt2("rope_theta", 10000, "is not known");

  CHECK(refusal_of(tiny_llama_json(), "torch_dtype", "bfloat16").empty());
  CHECK(refusal_of(tiny_llama_json(), "eos_token_id", {2, 3}).empty());
  CHECK(refusal_of(tiny_llama_json(), "rope_scaling", {{"type", "linear"}, {"factor", 2.0}}).empty());
  CHECK(refusal_of(tiny_llama_json(), "rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5000.0}}).empty());
}

TEST_CASE("what differs from llama in its kin is understood, or refused by name") {
  const auto config_of = [](nlohmann::json json, const nlohmann::json& changes) {
    if (!changes.is_null()) json.update(changes);
    return read_hugging_face_config(json.dump(), "config.json");
  };
  // Texts within a sliding window are computed as without one, so the window is the context.
  const nlohmann::json mistral = tiny_json("mistral");
  CHECK(config_of(mistral, {}).context == 64);
  CHECK(config_of(mistral, {{"sliding_window", 16}}).context == 16);
  CHECK(config_of(mistral, {{"max_position_embeddings", 32768}}).context == 32768);
  nlohmann::json without_window = mistral;
  without_window.erase("sliding_window");
  CHECK(config_of(without_window, {{"max_position_embeddings", 32768}}).context == 4096);  // the reference's default
  CHECK_THAT(refusal_of(mistral, "num_key_value_heads", nullptr), Catch::Contains("is missing"));
  CHECK_THAT(refusal_of(mistral, "attention_bias", true), Catch::Contains("'attention_bias' (true) is not known"));

  for (const std::string name : {"qwen2", "qwen3"}) {
    const nlohmann::json qwen = tiny_json(name);
    CHECK(config_of(qwen, {{"sliding_window", 8}, {"use_sliding_window", false}}).context == 64);
    CHECK(config_of(qwen, {{"sliding_window", 8}, {"use_sliding_window", true}, {"max_window_layers", 2}}).context ==
          64);
    CHECK(config_of(qwen, {{"sliding_window", 8}, {"use_sliding_window", true}, {"max_window_layers", 1}}).context ==
          8);
    CHECK_THAT(refusal_of(qwen, "layer_types", {"full_attention", "sliding_attention"}),
               Catch::Contains("no window is in use"));
    CHECK_THAT(refusal_of(qwen, "layer_types", {"full_attention", "chunked_attention"}),
               Catch::Contains("layer_types"));
  }
  CHECK_THAT(refusal_of(tiny_json("qwen3"), "head_dim", nullptr), Catch::Contains("'head_dim' is missing"));

  const nlohmann::json neox = tiny_json("gpt_neox");
  CHECK(config_of(neox, {}).rotary_width == 2);
  CHECK(config_of(neox, {}).parallel_blocks);
  CHECK(config_of(neox, {}).attention_bias);
  CHECK(
      config_of(neox, {{"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 1.0}}}}).rotary_width ==
      4);
  CHECK_THAT(refusal_of(neox, "rotary_pct", 0.25), Catch::Contains("no rotary pairs"));
  CHECK_THAT(refusal_of(neox, "rotary_pct", 1.5), Catch::Contains("no rotary pairs"));
  CHECK_THAT(refusal_of(neox, "hidden_act", "gelu_fast"), Catch::Contains("not computed"));

  const nlohmann::json gemma = tiny_json("gemma2");
  CHECK(config_of(gemma, {}).embedding_scale == 4);
  CHECK(config_of(gemma, {}).query_scale == Approx(std::sqrt(0.5)));
  CHECK(config_of(gemma, {}).attention_cap == 50);
  CHECK(config_of(gemma, {{"final_logit_softcapping", nullptr}}).logits_cap == 0);
  CHECK(config_of(gemma, {{"sliding_window", 16}}).context == 16);
  CHECK(config_of(gemma, {{"sliding_window", 16}, {"layer_types", {"full_attention", "full_attention"}}}).context ==
        64);
  CHECK_THAT(refusal_of(gemma, "use_bidirectional_attention", true), Catch::Contains("not computed"));

  TemporaryFolder folder;
  write_hugging_face(tiny_model(neox), folder / "tiny");
  CHECK_THAT(read_model_card(folder / "tiny").missing_site(SiteKind::resid_mid), Catch::Contains("run in parallel"));
  nlohmann::json in_turn = neox;
  in_turn["use_parallel_residual"] = false;
  write_bytes(folder / "in_turn.gguf", gguf_of(tiny_model(in_turn)).bytes());
  CHECK(read_model_card(folder / "in_turn.gguf").missing_site(SiteKind::resid_mid).empty());
}

TEST_CASE("GGUF keys of the architecture are understood or refused by name") {
  TemporaryFolder folder;
  const auto refused = [&](auto change, const std::string& part) {
    GgufBuilder builder = gguf_of(tiny_model(tiny_llama_json()));
    change(builder);
    write_bytes(folder / "x.gguf", builder.bytes());
    CHECK_THAT(refusal(folder / "x.gguf"), Catch::Contains(part));
  };
  refused([](GgufBuilder& b) { b.set("llama.logit_scale", 2.0f); }, "'llama.logit_scale' (2.0) is not known");
  refused([](GgufBuilder& b) { b.set("llama.expert_count", 8u); }, "'llama.expert_count' is 8");
  refused([](GgufBuilder& b) { b.set("llama.rope.scaling.type", "yarn"); }, "'yarn'");
  refused([](GgufBuilder& b) { b.set("llama.attention.value_length", 8u); }, "'llama.attention.value_length' is 8");
  refused([](GgufBuilder& b) { b.set("llama.vocab_size", 41u); }, "[40, 16], the configuration says [41, 16]");
  refused([](GgufBuilder& b) { b.set("general.type", "adapter"); }, "general.type");
  GgufBuilder gemma;
  gemma.set("general.architecture", "gemma2");
  write_bytes(folder / "gemma.gguf", gemma.bytes());
  CHECK_THAT(refusal(folder / "gemma.gguf"),
             Catch::Contains("'gemma2'; models of the families llama, gpt2, qwen2, qwen3, gptneox are read"));
  refused([](GgufBuilder& b) { b.set("split.count", 3u); }, "split.count");
  refused([](GgufBuilder& b) { b.tensor("blk.0.attn_q_norm.weight", {4}, 0, std::string(16, '\0')); },
          "'blk.0.attn_q_norm.weight' is not part");
  refused([](GgufBuilder& b) { b.tensor("rope_freqs.weight", {2}, 0, std::string("\0\0\200\77\0\0\200\101", 8)); },
          "not known");

  GgufBuilder linear = gguf_of(tiny_model(tiny_llama_json()));
  linear.set("llama.rope.scaling.type", "linear");
  linear.set("llama.rope.scaling.factor", 4.0f);
  write_bytes(folder / "linear.gguf", linear.bytes());
  const RopeScaling rope = read_model_card(folder / "linear.gguf").config.rope;
  CHECK(rope.kind == RopeScaling::Kind::linear);
  CHECK(rope.factor == 4);
}

TEST_CASE("rotary frequencies are those of transformers, and llama3's are known again in a GGUF file") {
  TemporaryFolder folder;
  for (const nlohmann::json& reference : nlohmann::json::parse(read_bytes(kFixtures + "rope_frequencies.json"))) {
    INFO(reference["name"]);
    const ModelConfig config = read_hugging_face_config(reference["config"].dump(), "config.json");
    const std::vector<float> frequencies = rope_frequencies(config);
    const std::vector<float> expected = reference["frequencies"];
    REQUIRE(frequencies.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(frequencies[i] == Approx(expected[i]).epsilon(3e-7));

    if (!reference.contains("divisors")) continue;
    const std::vector<float> divisors = reference["divisors"];
    const auto bytes = std::as_bytes(std::span(divisors));
    GgufBuilder builder;
    builder.set("general.architecture", "llama");
    for (const auto& [key, value] :
         std::map<std::string, std::uint32_t>{{"block_count", 1},
                                              {"embedding_length", config.width},
                                              {"feed_forward_length", 16},
                                              {"context_length", 99},
                                              {"attention.head_count", config.heads},
                                              {"attention.head_count_kv", config.kv_heads}}) {
      builder.set("llama." + key, value);
    }
    builder.set("llama.rope.freq_base", static_cast<float>(config.rope_theta));
    builder.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    builder.tensor("token_embd.weight", {1, 1}, 0, std::string(4, '\0'));
    builder.tensor("rope_freqs.weight", {static_cast<std::int64_t>(divisors.size())}, 0,
                   std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    write_bytes(folder / "x.gguf", builder.bytes());
    const RopeScaling rope = read_gguf_config(read_gguf(folder / "x.gguf"), "x.gguf").rope;
    CHECK(rope.kind == RopeScaling::Kind::llama3);
    CHECK(rope.factor == config.rope.factor);
    CHECK(rope.original_context == config.rope.original_context);
  }
}

TEST_CASE("the published model's file gives its card") {
  const std::string path = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) FAIL("the model is missing: run `make model`");
  const ModelCard card = read_model_card(path);
  CHECK(card.parameters == 134515008);
  CHECK(card.config.layers == 30);
  CHECK(card.config.head_dim == 64);
  CHECK(card.config.rope_theta == 100000);
  CHECK(card.config.tied_embeddings);
  CHECK(card.tensors.size() == 272);
}

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "runtime/model/model_writer.hpp"
#include "tests/support/reference_models.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tiny_model.hpp"

using namespace proviso::model;
using namespace proviso::test;

namespace {

std::shared_ptr<const Tokenizer> small_tokenizer(const TemporaryFolder& folder) {
  write_bytes(folder / "tokenizer/tokenizer.json", R"({
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "post_processor": null,
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
              "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
  return Tokenizer::load(folder / "tokenizer");
}

std::unique_ptr<Transformer> load(const std::string& path) { return Transformer::load(read_model_card(path), {}); }

/// The model at `path` as its file says, written out and read again.
std::unique_ptr<Transformer> written(const Transformer& transformer, const TemporaryFolder& folder,
                                     const std::string& name, ElementType type = ElementType::f32) {
  std::filesystem::create_directory(folder / name);
  write_model_files(transformer, *small_tokenizer(folder), folder / name, type);
  return load(folder / name);
}

nlohmann::json config_of(const TemporaryFolder& folder, const std::string& name) {
  return nlohmann::json::parse(read_bytes((folder / name) + "/config.json"));
}

at::Tensor all_logits(const Transformer& transformer) {
  const std::vector<Row> rows = rows_of({{1, 5, 9, 3}, {7, 2}});
  Pass pass;
  pass.rows = &rows;
  pass.logits_at = std::nullopt;
  return logits_of(transformer, pass);
}

void check_equal(const Transformer& before, const Transformer& after) {
  CHECK(before.names() == after.names());
  for (const std::string& name : before.names()) {
    INFO(name);
    CHECK(at::equal(before.get(name), after.get(name)));
  }
  // Maps that lie side by side in one file and not in the other are one product or several: the same to rounding.
  const at::Tensor expected = all_logits(before), got = all_logits(after);
  INFO((expected - got).abs().max().item<float>() << " of " << expected.abs().max().item<float>());
  CHECK(at::allclose(got, expected, 1e-5, 1e-6));
}

}  // namespace

TEST_CASE("a written model is the model, in every family and from every format") {
  TemporaryFolder folder;
  for (const std::string& name : kTinyModels) {
    INFO(name);
    const auto model = load_tiny_model(name);
    const auto copy = written(*model, folder, name);
    check_equal(*model, *copy);
    CHECK(copy->tied() == model->tied());
    CHECK(read_bytes((folder / name) + "/tokenizer.json").find("\"ab\"") != std::string::npos);
  }
  for (const std::string name : {"llama", "gpt2", "gpt_neox", "qwen2", "qwen3"}) {
    INFO(name);
    const nlohmann::json json = tiny_json(name);
    const TinyModel tiny = tiny_model(json);
    write_bytes(folder / (name + ".gguf"), gguf_of(tiny).bytes());
    write_hugging_face(tiny, folder / (name + " as published"));
    const auto model = load(folder / (name + ".gguf"));
    check_equal(*load(folder / (name + " as published")), *model);
    check_equal(*model, *written(*model, folder, name + " from gguf"));
    const nlohmann::json config = config_of(folder, name + " from gguf");
    CHECK(config["architectures"] == json["architectures"]);
    CHECK(config["torch_dtype"] == "float32");
  }
}

TEST_CASE("what an edit added is carried by the configuration") {
  TemporaryFolder folder;
  const auto model = load_tiny_model("llama_linear_tied");
  REQUIRE(model->tied());
  const std::int64_t width = model->config().width;
  model->set("model.layers.1.mlp.down_proj.bias", at::arange(width).to(at::kFloat));
  model->set("model.layers.0.self_attn.o_proj.bias", at::ones({width}));
  model->set("model.embed_tokens.weight", model->get("model.embed_tokens.weight") + 1);
  REQUIRE_FALSE(model->tied());

  const auto copy = written(*model, folder, "edited");
  const nlohmann::json config = config_of(folder, "edited");
  CHECK(config["mlp_bias"] == true);
  CHECK(config["attention_bias"] == true);
  CHECK(config["tie_word_embeddings"] == false);
  CHECK(at::equal(copy->get("model.layers.1.mlp.down_proj.bias"), model->get("model.layers.1.mlp.down_proj.bias")));
  CHECK(copy->get("model.layers.0.mlp.down_proj.bias").abs().max().item<float>() == 0);
  CHECK(copy->get("model.layers.1.self_attn.q_proj.bias").abs().max().item<float>() == 0);
  CHECK(at::equal(copy->get("lm_head.weight"), model->get("lm_head.weight")));
  CHECK(at::allclose(all_logits(*copy), all_logits(*model), 1e-5, 1e-6));
}

TEST_CASE("a model is written in the type asked for, and its own loses nothing") {
  TemporaryFolder folder;
  const auto model = load_tiny_model("gpt2");
  const auto rounded = written(*model, folder, "rounded", ElementType::bf16);
  CHECK(writable_type(rounded->card()) == ElementType::bf16);
  const nlohmann::json config = config_of(folder, "rounded");
  CHECK(config.value("dtype", config.value("torch_dtype", "")) == "bfloat16");
  const std::string name = "transformer.h.0.attn.c_proj.weight";
  CHECK(at::equal(rounded->get(name), model->get(name).to(at::kBFloat16).to(at::kFloat)));

  const auto again = written(*rounded, folder, "again", ElementType::bf16);
  CHECK(read_bytes(folder / "again/model.safetensors") == read_bytes(folder / "rounded/model.safetensors"));

  write_bytes(folder / "x.gguf", gguf_of(tiny_model(tiny_llama_json())).bytes());
  CHECK(writable_type(read_model_card(folder / "x.gguf")) == ElementType::f32);
  CHECK_THROWS_AS(write_model_files(*model, *small_tokenizer(folder), folder / "again", ElementType::q8_0),
                  std::invalid_argument);
}

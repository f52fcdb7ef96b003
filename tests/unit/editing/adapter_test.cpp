#include "editing/adapter.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <map>

#include "editing/ledger_history.hpp"
#include "runtime/formats/safetensors.hpp"
#include "tests/unit/editing/edited_models.hpp"

using namespace proviso;
using namespace proviso::test;
using dsl::SiteKind;
using editing::LedgerEntry;
using Kind = editing::WrittenForm::Kind;

namespace {

LedgerEntry removal_at(const model::Transformer& transformer, const std::string& name, dsl::Site site,
                       std::uint64_t seed, std::int64_t directions = 1) {
  const auto D = random_tensor({directions, transformer.config().width}, seed);
  LedgerEntry entry{name, "rules.proviso", "abc", {}, {}, {}};
  entry.deltas = std::get<std::vector<editing::WeightDelta>>(
      editing::fold(editing::removal(D / D.norm(2, 1, /*keepdim=*/true), 1), transformer, site));
  return entry;
}

std::map<std::string, at::Tensor> tensors_in(const std::string& path) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& stored : model::read_safetensors(path).tensors) {
    auto values = at::empty(stored.shape, at::kFloat);
    model::dequantize(stored, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    tensors[stored.name] = values;
  }
  return tensors;
}

}  // namespace

TEST_CASE("an adapter holds the ledger's changes under the names that PEFT gives them") {
  RandomModel random;
  auto& transformer = *random.transformer;
  TemporaryFolder out;
  const std::vector<LedgerEntry> entries = {removal_at(transformer, "a", {SiteKind::mlp_out, 1}, 1),
                                            removal_at(transformer, "b", {SiteKind::mlp_out, 1}, 2, 2),
                                            removal_at(transformer, "c", {SiteKind::attn_out, 0}, 3)};
  editing::write_edited_model(transformer, *random.tokenizer, entries, {out / "adapter", {Kind::adapter}});

  const std::string down = "model.layers.1.mlp.down_proj", attention = "model.layers.0.self_attn.o_proj";
  const auto config = nlohmann::json::parse(read_bytes(out / "adapter/adapter_config.json"));
  CHECK(config["peft_type"] == "LORA");
  CHECK(config["task_type"] == "CAUSAL_LM");
  CHECK(config["base_model_name_or_path"] == random.folder.path().string());
  CHECK(config["target_modules"] == nlohmann::json({attention, down}));
  CHECK(config["r"] == 3);
  CHECK(config["lora_alpha"] == 3);
  CHECK(config["rank_pattern"] == nlohmann::json({{attention, 1}}));
  CHECK(config["alpha_pattern"] == config["rank_pattern"]);
  CHECK(config["fan_in_fan_out"] == false);
  CHECK(config["bias"] == "none");

  const auto tensors = tensors_in(out / "adapter/adapter_model.safetensors");
  REQUIRE(tensors.size() == 4);
  const auto product = [&](const std::string& module) {
    const auto name = "base_model.model." + module;
    return tensors.at(name + ".lora_B.weight").to(at::kDouble).mm(tensors.at(name + ".lora_A.weight").to(at::kDouble));
  };
  const auto kept = editing::verify_edited_model(out / "adapter").entries;
  const auto change = [&](std::size_t entry) { return kept[entry].deltas[0].left.mm(kept[entry].deltas[0].right); };
  CHECK(tensors.at("base_model.model." + down + ".lora_A.weight").sizes() == at::IntArrayRef({3, 24}));
  CHECK(tensors.at("base_model.model." + down + ".lora_B.weight").sizes() == at::IntArrayRef({16, 3}));
  CHECK(at::allclose(product(down), change(0) + change(1), 1e-6, 1e-7));
  CHECK(at::allclose(product(attention), change(2), 1e-6, 1e-7));
}

TEST_CASE("GPT-2's maps, which lie as [in, out], keep the adapter's own orientation") {
  RandomModel random(tiny_gpt2_json());
  auto& transformer = *random.transformer;
  auto entry = removal_at(transformer, "a", {SiteKind::mlp_out, 1}, 1);
  entry.deltas.resize(1);  // its bias stays
  const auto modules = editing::adapter_modules(transformer, {entry});
  REQUIRE(modules.size() == 1);
  CHECK(modules[0].module == "transformer.h.1.mlp.c_proj");
  CHECK(modules[0].A.sizes() == at::IntArrayRef({1, 64}));
  CHECK(modules[0].B.sizes() == at::IntArrayRef({16, 1}));
  CHECK(nlohmann::json::parse(editing::adapter_config(transformer, modules))["fan_in_fan_out"] == true);
}

TEST_CASE("what an adapter cannot hold is named by edit and tensor") {
  auto json = tiny_gpt2_json();
  RandomModel random(json);
  auto& transformer = *random.transformer;
  TemporaryFolder out;
  const std::vector<LedgerEntry> entries = {removal_at(transformer, "bias", {SiteKind::mlp_out, 1}, 1),
                                            removal_at(transformer, "tables", {SiteKind::embed}, 2),
                                            removal_at(transformer, "full", {SiteKind::attn_out, 0}, 3, 16)};
  const auto said = refusal_of([&] {
    editing::write_edited_model(transformer, *random.tokenizer, entries, {out / "adapter", {Kind::adapter}});
  });
  for (const char* part :
       {"`bias` changes transformer.h.1.mlp.c_proj.bias, a bias",
        "`tables` changes transformer.wte.weight, the embedding",
        "`tables` changes transformer.wpe.weight, the position embedding",
        "`full` changes transformer.h.0.attn.c_proj.weight by factors of rank 16", "help: write the whole model"}) {
    INFO(said);
    CHECK(said.find(part) != std::string::npos);
  }
  CHECK_FALSE(std::filesystem::exists(out / "adapter"));
}

TEST_CASE("an adapter's ledger is verified and replayed, and nothing is reverted or rebuilt from it") {
  RandomModel random, copy;
  TemporaryFolder out;
  const std::vector<LedgerEntry> entries = {removal_at(*random.transformer, "a", {SiteKind::mlp_out, 1}, 1),
                                            removal_at(*random.transformer, "b", {SiteKind::attn_out, 1}, 2)};
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries, {out / "adapter", {Kind::adapter}});
  editing::replay_edits(out / "adapter", *copy.transformer, *copy.tokenizer, out / "again");
  for (const char* file : {"/adapter_config.json", "/adapter_model.safetensors", "/proviso/edit-1.safetensors"})
    CHECK(read_bytes((out / "again") + file) == read_bytes((out / "adapter") + file));

  CHECK(refusal_of([&] { editing::revert_edited_model(out / "adapter", out / "x"); }).find("is an adapter") !=
        std::string::npos);
  CHECK(refusal_of([&] { editing::drop_edit(out / "adapter", "a", out / "x"); }).find("apply the edits") !=
        std::string::npos);
  CHECK(refusal_of([&] { editing::squash_edits(out / "adapter", out / "x"); }).find("is an adapter") !=
        std::string::npos);
  CHECK_FALSE(std::filesystem::exists(out / "x"));

  const std::string file = GENERATE(as<std::string>(), "adapter_model.safetensors", "adapter_config.json");
  auto bytes = read_bytes(out / ("adapter/" + file));
  bytes[bytes.size() - 3] ^= 1;
  write_bytes(out / ("adapter/" + file), bytes);
  CHECK(refusal_of([&] { editing::verify_edited_model(out / "adapter"); }).find(file) != std::string::npos);
}

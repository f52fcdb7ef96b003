#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <map>

#include "editing/ledger_history.hpp"
#include "runtime/formats/sha256.hpp"
#include "tests/unit/editing/edited_models.hpp"

using namespace proviso;
using namespace proviso::test;
using dsl::SiteKind;
using editing::LedgerEntry;

namespace fs = std::filesystem;

TEST_CASE("an edited model is written as it is in memory, and reverting gives the source's files byte for byte") {
  auto json = GENERATE(tiny_llama_json(), tiny_gpt2_json());
  if (json["model_type"] == "llama") json["tie_word_embeddings"] = GENERATE(false, true);
  RandomModel random(json);
  auto& transformer = *random.transformer;
  TemporaryFolder out;
  const auto entries = entries_for(transformer);
  editing::write_edited_model(transformer, *random.tokenizer, entries,
                              {out / "edited", {}, {{"hooks.proviso", "# kept\n"}}});

  const auto edited = model::Transformer::load(model::read_model_card(out / "edited"), {});
  const auto rows = rows_of(*random.tokenizer, {"Some text"});
  const auto plain = logits_of(transformer, rows);
  {
    editing::AppliedDeltas applied(transformer);
    for (const auto& entry : entries)
      for (const auto& delta : entry.deltas) applied.apply(delta);
    CHECK(at::allclose(logits_of(*edited, rows), logits_of(transformer, rows), 1e-5, 1e-5));
    for (const auto& name : transformer.names()) CHECK(bytes_of(edited->get(name)) == bytes_of(transformer.get(name)));
  }
  CHECK(at::equal(logits_of(transformer, rows), plain));
  CHECK(read_bytes(out / "edited/hooks.proviso") == "# kept\n");

  editing::revert_edited_model(out / "edited", out / "before");
  CHECK(files_in(out / "before") == files_in(random.folder.path()));
}

TEST_CASE("the ledger names every tensor with its hash before and after, and keeps each change alone") {
  RandomModel random;
  auto& transformer = *random.transformer;
  TemporaryFolder out;
  const auto entries = entries_for(transformer);
  editing::write_edited_model(transformer, *random.tokenizer, entries, {out / "edited"});
  const auto ledger = nlohmann::json::parse(read_bytes(out / "edited/proviso/ledger.json"));
  const std::string down = "model.layers.1.mlp.down_proj.weight", up = "model.layers.1.mlp.up_proj.weight";
  CHECK(ledger["tensors"][down]["sha256_before"] == editing::tensor_sha256(transformer.get(down)));
  CHECK(ledger["tensors"][down]["sha256_after"] == entries[0].certificates[0].changes[0].sha256_after);
  CHECK(ledger["tensors"][up]["sha256_before"] == ledger["tensors"][up]["sha256_after"]);
  CHECK(ledger["tensors"]["model.layers.0.mlp.down_proj.bias"]["sha256_before"].is_null());
  CHECK(ledger["edits"][0]["rule_sha256"] == "abc");
  CHECK(ledger["edits"][1]["name"] == "clear_embed");

  const auto factors = model::read_safetensors(out / "edited/proviso/edit-1.safetensors");
  std::map<std::string, at::Tensor> parts;
  for (const auto& tensor : factors.tensors) {
    auto values = at::empty(tensor.shape, at::kFloat);
    model::dequantize(tensor, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    parts[tensor.name] = values.to(at::kDouble);
  }
  const auto left = "0." + down + ".left";
  // To the bit: replaying gives the same weights.
  CHECK(at::equal(parts.at(left + ".least") + parts.at(left + ".rest") + parts.at(left), entries[0].deltas[0].left));
}

TEST_CASE("a folder altered since is refused by the file's name, and nothing is written") {
  RandomModel random;
  TemporaryFolder out;
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries_for(*random.transformer),
                              {out / "edited"});
  const std::string file = GENERATE(as<std::string>(), "model.safetensors", "proviso/ledger.json",
                                    "proviso/originals/model.safetensors", "proviso/originals/config.json");
  SECTION("one bit") { flip_a_byte(out / ("edited/" + file), file.ends_with("ledger.json") ? 100 : 5); }
  SECTION("missing") { fs::remove(out / ("edited/" + file)); }
  SECTION("cut short") { fs::resize_file(out / ("edited/" + file), 40); }
  CHECK_THROWS_MATCHES(editing::revert_edited_model(out / "edited", out / "before"), model::InputError,
                       Catch::Predicate<model::InputError>([&](const model::InputError& error) {
                         return std::string(error.what()).find(file) != std::string::npos;
                       }));
  CHECK_FALSE(fs::exists(out / "before"));
  CHECK(files_in(out.path()).empty());
}

TEST_CASE("a ledger whose names leave the folder is refused") {
  RandomModel random;
  TemporaryFolder out;
  editing::write_edited_model(*random.transformer, *random.tokenizer, {}, {out / "edited"});
  const auto path = out / "edited/proviso/ledger.json";
  auto ledger = nlohmann::ordered_json::parse(read_bytes(path));
  ledger["originals"][1]["name"] = "../outside.json";
  ledger.erase("seal");
  const auto text = ledger.dump();
  ledger["seal"] = model::sha256_hex(std::as_bytes(std::span(text)));
  write_bytes(path, ledger.dump(1));
  CHECK_THROWS_AS(editing::revert_edited_model(out / "edited", out / "before"), model::InputError);
  CHECK_FALSE(fs::exists(out / "outside.json"));
}

TEST_CASE("an existing folder is never overwritten") {
  RandomModel random;
  TemporaryFolder out;
  write_bytes(out / "edited/precious", "kept");
  CHECK_THROWS_AS(editing::write_edited_model(*random.transformer, *random.tokenizer, {}, {out / "edited"}),
                  model::InputError);
  CHECK(read_bytes(out / "edited/precious") == "kept");
}

TEST_CASE("a GGUF source reverts to its float32 weights as a Hugging Face folder") {
  const RandomModel tokenizer_source;
  TemporaryFolder folder;
  write_bytes(folder / "tiny.gguf", gguf_of(tiny_model(tiny_llama_json())).bytes());
  const auto loaded = model::Transformer::load(model::read_model_card(folder / "tiny.gguf"), {});
  editing::write_edited_model(*loaded, *tokenizer_source.tokenizer, entries_for(*loaded), {folder / "edited"});
  editing::revert_edited_model(folder / "edited", folder / "before");
  const auto before = model::Transformer::load(model::read_model_card(folder / "before"), {});
  CHECK(before->names().size() == loaded->names().size());
  for (const auto& name : loaded->names()) CHECK(bytes_of(before->get(name)) == bytes_of(loaded->get(name)));
  CHECK_FALSE(fs::exists(folder / "edited/proviso/source"));
}

TEST_CASE("a ledger replays on another copy of the model to the same folder, byte for byte") {
  RandomModel random, copy;
  TemporaryFolder out;
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries_for(*random.transformer),
                              {out / "edited", {}, {{"hooks.proviso", "# kept\n"}}});
  editing::replay_edits(out / "edited", *copy.transformer, *copy.tokenizer, out / "again");
  CHECK(files_in(out / "again") == files_in(out / "edited"));
  auto ours = files_in(out / "edited/proviso"), theirs = files_in(out / "again/proviso");
  auto named = nlohmann::json::parse(ours["ledger.json"]), again = nlohmann::json::parse(theirs["ledger.json"]);
  CHECK(named["edits"] == again["edits"]);
  CHECK(named["tensors"] == again["tensors"]);
  ours.erase("ledger.json");
  theirs.erase("ledger.json");
  CHECK(ours == theirs);
  CHECK(editing::verify_edited_model(out / "again").entries.size() == 2);

  RandomModel other(tiny_llama_json(), 0.3f);
  const auto refused =
      refusal_of([&] { editing::replay_edits(out / "edited", *other.transformer, *other.tokenizer, out / "other"); });
  CHECK(refused.find("is not the model") != std::string::npos);
  CHECK_FALSE(fs::exists(out / "other"));
}

TEST_CASE("a dropped edit leaves the model that the other edits alone make") {
  RandomModel random;
  TemporaryFolder out;
  const auto entries = entries_for(*random.transformer);
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries, {out / "both"});
  editing::write_edited_model(*random.transformer, *random.tokenizer, {entries[1]}, {out / "second"});
  editing::drop_edit(out / "both", entries[0].name, out / "dropped");
  CHECK(files_in(out / "dropped") == files_in(out / "second"));
  const auto left = editing::verify_edited_model(out / "dropped");
  REQUIRE(left.entries.size() == 1);
  CHECK(left.entries[0].remark.find(entries[0].name) != std::string::npos);
  editing::revert_edited_model(out / "dropped", out / "before");
  CHECK(files_in(out / "before") == files_in(random.folder.path()));

  CHECK(refusal_of([&] { editing::drop_edit(out / "both", "clear", out / "x"); }).find("clear_embed") !=
        std::string::npos);
  CHECK(refusal_of([&] { editing::drop_edit(out / "second", entries[1].name, out / "x"); }).find("revert") !=
        std::string::npos);
  CHECK_FALSE(fs::exists(out / "x"));
}

TEST_CASE("squashed edits are one entry of the same model") {
  RandomModel random;
  TemporaryFolder out;
  const auto entries = entries_for(*random.transformer);
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries, {out / "both"});
  editing::squash_edits(out / "both", out / "one");
  CHECK(files_in(out / "one") == files_in(out / "both"));
  const auto one = editing::verify_edited_model(out / "one");
  REQUIRE(one.entries.size() == 1);
  CHECK(one.entries[0].name == entries[0].name + ", " + entries[1].name);
  CHECK(one.entries[0].deltas.size() == entries[0].deltas.size() + entries[1].deltas.size());
}

TEST_CASE("verifying names the file that was tampered with") {
  RandomModel random;
  TemporaryFolder out;
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries_for(*random.transformer),
                              {out / "edited", {}, {{"hooks.proviso", "# kept\n"}}});
  CHECK_NOTHROW(editing::verify_edited_model(out / "edited"));
  const std::string file =
      GENERATE(as<std::string>(), "model.safetensors", "proviso/ledger.json", "proviso/edit-2.safetensors",
               "proviso/originals/model.safetensors", "proviso/originals/config.json", "hooks.proviso");
  flip_a_byte(out / ("edited/" + file), file.ends_with("ledger.json") ? 100 : 3);
  CHECK(refusal_of([&] { editing::verify_edited_model(out / "edited"); }).find(file) != std::string::npos);
}

TEST_CASE("files that the edited folder has and its source has not are in the ledger, too") {
  RandomModel random;
  TemporaryFolder out;
  fs::remove(random.folder / "generation_config.json");
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries_for(*random.transformer),
                              {out / "edited"});
  REQUIRE(fs::exists(out / "edited/generation_config.json"));
  CHECK_NOTHROW(editing::verify_edited_model(out / "edited"));
  flip_a_byte(out / "edited/generation_config.json", 2);
  CHECK(refusal_of([&] { editing::verify_edited_model(out / "edited"); }).find("generation_config.json") !=
        std::string::npos);
}

TEST_CASE("a change of full rank is kept without its identity, and comes back to the bit") {
  RandomModel random;
  auto& transformer = *random.transformer;
  TemporaryFolder out;
  const std::string down = "model.layers.1.mlp.down_proj.weight", gate = "model.layers.0.mlp.gate_proj.weight";
  LedgerEntry entry{"whole", "rules.proviso", "abc", {}, {}, {}};
  entry.deltas = {editing::whole_change(down, random_tensor(transformer.get(down).sizes().vec())),
                  editing::whole_change(gate, random_tensor(transformer.get(gate).sizes().vec()))};
  CHECK(editing::is_identity(entry.deltas[0].left));
  CHECK(editing::is_identity(entry.deltas[1].right));
  editing::write_edited_model(transformer, *random.tokenizer, {entry}, {out / "edited"});
  for (const auto& stored : model::read_safetensors(out / "edited/proviso/edit-1.safetensors").tensors) {
    INFO(stored.name);
    CHECK((stored.name.find(down + ".right") != std::string::npos ||
           stored.name.find(gate + ".left") != std::string::npos));
  }
  const auto read = editing::read_edited_model(out / "edited").entries[0].deltas;
  REQUIRE(read.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(read[i].tensor == entry.deltas[i].tensor);
    CHECK(at::equal(read[i].left, entry.deltas[i].left));
    CHECK(at::equal(read[i].right, entry.deltas[i].right));
  }
}

TEST_CASE("keys that later edits are to spare stay in the ledger, also of the ledgers before, and go with their edit") {
  RandomModel random;
  auto& transformer = *random.transformer;
  TemporaryFolder out;
  auto entries = entries_for(transformer);
  const auto first = random_tensor({24, 2}, 1), second = random_tensor({24, 1}, 2), older = random_tensor({24, 3}, 3);
  entries[0].kept_keys = {{0, first}};
  entries[1].kept_keys = {{0, second}, {1, second}};
  editing::EditedOutput output{out / "edited"};
  output.inherited_keys = {{0, older}};
  editing::write_edited_model(transformer, *random.tokenizer, entries, output);
  auto kept = editing::kept_keys(out / "edited");
  CHECK(at::equal(kept.at(0), at::cat({older, first, second}, 1)));
  CHECK(at::equal(kept.at(1), second));
  CHECK(editing::kept_keys(random.folder.path().string()).empty());

  editing::squash_edits(out / "edited", out / "squashed");
  CHECK(at::equal(editing::kept_keys(out / "squashed").at(0), kept.at(0)));
  editing::drop_edit(out / "edited", entries[0].name, out / "dropped");
  CHECK(at::equal(editing::kept_keys(out / "dropped").at(0), at::cat({older, second}, 1)));
  flip_a_byte(out / "edited/proviso/inherited-keys.safetensors", 3);
  CHECK(refusal_of([&] { editing::kept_keys(out / "edited"); }).find("inherited-keys") != std::string::npos);
}

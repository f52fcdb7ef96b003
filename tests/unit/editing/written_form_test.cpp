#include "editing/written_form.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <list>
#include <set>

#include "editing/ledger_history.hpp"
#include "runtime/formats/gguf.hpp"
#include "runtime/formats/quantize.hpp"
#include "runtime/model/gguf_writer.hpp"
#include "tests/support/small_disk.hpp"
#include "tests/unit/editing/edited_models.hpp"

using namespace proviso;
using namespace proviso::test;
using dsl::SiteKind;
using editing::LedgerEntry;

namespace {

namespace fs = std::filesystem;

/// A model of the llama family as a GGUF file, whose maps into the stream are of the type given.
std::string write_gguf_of(const TemporaryFolder& folder, model::ElementType type, bool tied) {
  auto json = tiny_llama_json();
  json["hidden_size"] = 32;
  json["intermediate_size"] = 64;
  json["tie_word_embeddings"] = tied;
  const auto tiny = tiny_model(json);
  write_bytes(folder / "plain.gguf", gguf_of(tiny).bytes());
  const auto plain = model::read_gguf(folder / "plain.gguf");
  std::vector<model::TensorToWrite> tensors;
  std::list<std::vector<std::byte>> quantized;
  for (const auto& stored : plain.tensors) {
    tensors.push_back({stored.name, stored.type, stored.shape, stored.bytes});
    if (!stored.name.ends_with("ffn_down.weight") && !stored.name.ends_with("attn_q.weight")) continue;
    std::vector<float> values(static_cast<std::size_t>(stored.elements()));
    model::dequantize(stored, values);
    quantized.push_back(model::quantize(values, type));
    tensors.back().type = type;
    tensors.back().bytes = quantized.back();
  }
  write_gguf(folder / "tiny.gguf", plain, tensors);
  fs::remove(folder / "plain.gguf");
  return folder / "tiny.gguf";
}

LedgerEntry changing(const model::Transformer& transformer, const std::string& name, const std::string& tensor) {
  const auto shape = transformer.get(tensor).sizes();
  LedgerEntry entry{name, "rules.proviso", "abc", {}, {}, {}};
  entry.deltas = {{tensor, random_tensor({shape[0], 1}), random_tensor({1, shape[1]}, 2)}};
  return entry;
}

}  // namespace

TEST_CASE("a GGUF file comes back as one: what no edit touches byte for byte, and reverting gives the file itself") {
  const RandomModel tokenizer_source;
  const auto& tokenizer = *tokenizer_source.tokenizer;
  TemporaryFolder folder;
  const auto type = GENERATE(model::ElementType::f16, model::ElementType::bf16, model::ElementType::q8_0,
                             model::ElementType::q4_0, model::ElementType::q4_1);
  INFO(model::element_type_name(type));
  const auto file = write_gguf_of(folder, type, false);
  const auto loaded = model::Transformer::load(model::read_model_card(file), {});
  const std::string down = "model.layers.1.mlp.down_proj.weight", q = "model.layers.0.self_attn.q_proj.weight";
  const std::vector<LedgerEntry> entries = {changing(*loaded, "down", down), changing(*loaded, "q", q)};
  const editing::WrittenForm gguf{editing::WrittenForm::Kind::gguf};
  editing::write_edited_model(*loaded, tokenizer, entries, {folder / "edited.gguf", gguf});

  const auto before = model::read_gguf(file), after = model::read_gguf(folder / "edited.gguf");
  CHECK(std::ranges::equal(before.metadata_bytes, after.metadata_bytes));
  REQUIRE(before.tensors.size() == after.tensors.size());
  for (std::size_t i = 0; i < before.tensors.size(); ++i) {
    const auto &was = before.tensors[i], &is = after.tensors[i];
    INFO(was.name);
    CHECK(is.name == was.name);
    CHECK(is.type == was.type);
    const bool changed = was.name == "blk.1.ffn_down.weight" || was.name == "blk.0.attn_q.weight";
    CHECK(std::ranges::equal(is.bytes, was.bytes) != changed);
  }

  // What a reader computes with is what was measured before the file was there; rows of q lie in another order.
  const auto rounded = editing::rounded_tensors(*loaded, entries, gguf, true);
  CHECK(rounded.size() == 2);
  const auto reloaded = model::Transformer::load(model::read_model_card(folder / "edited.gguf"), {});
  for (const auto& tensor : rounded) {
    CHECK(at::equal(reloaded->get(tensor.tensor), tensor.value));
    CHECK(tensor.relative_error > 0);
    CHECK(tensor.relative_error < (type == model::ElementType::q4_0 ? 0.15 : 0.1));
    CHECK(tensor.change_kept.value() > 0.5);
  }
  const auto kept = editing::verify_edited_model(folder / "edited.gguf");
  REQUIRE(kept.rounded.size() == 2);
  CHECK(kept.rounded[1].tensor == down);
  CHECK(kept.rounded[1].type == model::element_type_name(type));
  CHECK(kept.rounded[1].change_kept == Approx(*rounded[1].change_kept));

  editing::revert_edited_model(folder / "edited.gguf", folder / "before.gguf");
  CHECK(read_bytes(folder / "before.gguf") == read_bytes(file));
  CHECK_FALSE(fs::exists(folder / "before.gguf.proviso"));
}

TEST_CASE("a GGUF file takes wider tensors, an untied unembedding and new biases, and still comes back") {
  const RandomModel tokenizer_source;
  const auto& tokenizer = *tokenizer_source.tokenizer;
  TemporaryFolder folder;
  const auto file = write_gguf_of(folder, model::ElementType::q4_1, true);
  const auto loaded = model::Transformer::load(model::read_model_card(file), {});
  REQUIRE(loaded->tied());
  const auto D = random_tensor({1, 32});
  auto request = editing::removal(D / D.norm(), 1);
  request.targets.fill_(0.5);
  std::vector<LedgerEntry> entries;
  for (const dsl::Site site : {dsl::Site{SiteKind::mlp_out, 1}, dsl::Site{SiteKind::embed}}) {
    entries.push_back({std::string(dsl::site_name(site.kind)), "rules.proviso", "abc", {}, {}, {}});
    entries.back().deltas = std::get<std::vector<editing::WeightDelta>>(editing::fold(request, *loaded, site));
  }
  const editing::WrittenForm wide{editing::WrittenForm::Kind::gguf, model::ElementType::f32};
  editing::write_edited_model(*loaded, tokenizer, entries, {folder / "edited.gguf", wide});
  CHECK(editing::verify_edited_model(folder / "edited.gguf").rounded.empty());

  const auto edited = model::Transformer::load(model::read_model_card(folder / "edited.gguf"), {});
  const std::vector<model::Row> rows = {{{1, 5, 9, 3}, 4}, {{7, 2}, 2}};
  {
    editing::AppliedDeltas applied(*loaded);
    for (const auto& entry : entries)
      for (const auto& delta : entry.deltas) applied.apply(delta);
    CHECK(at::allclose(logits_of(*edited, rows), logits_of(*loaded, rows), 1e-5, 1e-5));
    CHECK_FALSE(edited->tied());
  }

  SECTION("reverted and replayed, it is what it is to be") {
    editing::revert_edited_model(folder / "edited.gguf", folder / "before.gguf");
    CHECK(read_bytes(folder / "before.gguf") == read_bytes(file));

    const auto copy = model::Transformer::load(model::read_model_card(file), {});
    editing::replay_edits(folder / "edited.gguf", *copy, tokenizer, folder / "again.gguf");
    CHECK(read_bytes(folder / "again.gguf") == read_bytes(folder / "edited.gguf"));
  }
  SECTION("an edit of an edited file is undone in turn") {
    const auto again = model::Transformer::load(model::read_model_card(folder / "edited.gguf"), {});
    editing::write_edited_model(*again, tokenizer, {changing(*again, "q", "model.layers.0.self_attn.q_proj.weight")},
                                {folder / "twice.gguf", {editing::WrittenForm::Kind::gguf}});
    editing::revert_edited_model(folder / "twice.gguf", folder / "once.gguf");
    CHECK(read_bytes(folder / "once.gguf") == read_bytes(folder / "edited.gguf"));
    CHECK(files_in(folder / "once.gguf.proviso") == files_in(folder / "edited.gguf.proviso"));
    editing::revert_edited_model(folder / "once.gguf", folder / "before.gguf");
    CHECK(read_bytes(folder / "before.gguf") == read_bytes(file));
  }
  SECTION("its ledger belongs to it") {
    CHECK(refusal_of([&] { editing::revert_edited_model(folder / "edited.gguf", folder / "x"); }).find(".gguf file") !=
          std::string::npos);
    flip_a_byte(folder / "edited.gguf", 5);
    CHECK(refusal_of([&] {
            editing::revert_edited_model(folder / "edited.gguf", folder / "x.gguf");
          }).find("edited.gguf: has changed") != std::string::npos);
    CHECK_FALSE(fs::exists(folder / "x.gguf"));
  }
}

TEST_CASE("a type that is not written is refused by the tensor's name") {
  TemporaryFolder folder;
  const auto loaded =
      model::Transformer::load(model::read_model_card(write_gguf_of(folder, model::ElementType::q8_0, false)), {});
  const std::string down = "model.layers.1.mlp.down_proj.weight";
  CHECK(model::changed_type(loaded->card(), down, std::nullopt) == model::ElementType::q8_0);
  CHECK(model::changed_type(loaded->card(), "model.norm.weight", model::ElementType::f16) == model::ElementType::f32);
  auto card = loaded->card();
  for (auto& tensor : card.tensors) tensor.stored.shape.back() = 33;
  CHECK(refusal_of([&] { (void)model::changed_type(card, down, model::ElementType::q8_0); }).find("no whole blocks") !=
        std::string::npos);
  for (auto& tensor : card.tensors) tensor.stored.type = model::ElementType::q6_k;
  const auto said = refusal_of([&] { (void)model::changed_type(card, down, std::nullopt); });
  CHECK(said.find("blk.1.ffn_down.weight") != std::string::npos);
  CHECK(said.find("--dtype float16") != std::string::npos);
}

TEST_CASE("a folder is written in the type asked for, and its source comes back to the byte") {
  RandomModel random;
  TemporaryFolder out;
  const auto entries = entries_for(*random.transformer);
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries,
                              {out / "edited", {.type = model::ElementType::bf16}});
  const auto edited = model::Transformer::load(model::read_model_card(out / "edited"), {});
  const std::string up = "model.layers.1.mlp.up_proj.weight";
  CHECK(at::equal(edited->get(up), random.transformer->get(up).to(at::kBFloat16).to(at::kFloat)));
  const auto rounded = editing::rounded_tensors(*random.transformer, entries, {.type = model::ElementType::bf16}, true);
  for (const auto& tensor : rounded) CHECK(at::equal(tensor.value, edited->get(tensor.tensor)));
  CHECK(std::ranges::find(rounded, up, &editing::RoundedTensor::tensor) != rounded.end());

  editing::revert_edited_model(out / "edited", out / "before");
  CHECK(files_in(out / "before") == files_in(random.folder.path()));
  RandomModel copy;
  editing::replay_edits(out / "edited", *copy.transformer, *copy.tokenizer, out / "again");
  CHECK(files_in(out / "again") == files_in(out / "edited"));
  editing::squash_edits(out / "edited", out / "one");
  CHECK(files_in(out / "one") == files_in(out / "edited"));
}

TEST_CASE("what a rounded folder answers is what its tensors answered before they were written") {
  auto json = tiny_llama_json();
  json["tie_word_embeddings"] = GENERATE(false, true);
  RandomModel random(json);
  auto& transformer = *random.transformer;
  TemporaryFolder out;
  const std::vector<LedgerEntry> entries = {entries_for(transformer).front()};
  const editing::WrittenForm half{.type = model::ElementType::f16};
  editing::write_edited_model(transformer, *random.tokenizer, entries, {out / "edited", half});
  const auto edited = model::Transformer::load(model::read_model_card(out / "edited"), {});
  CHECK(edited->tied() == json["tie_word_embeddings"]);
  const auto rows = rows_of(*random.tokenizer, {"Some text"});
  const auto rounded = editing::rounded_tensors(transformer, entries, half, true);
  editing::AppliedDeltas applied(transformer);
  for (const auto& delta : entries.front().deltas) applied.apply(delta);
  for (const auto& tensor : rounded) applied.replace(tensor.tensor, tensor.value);
  CHECK(at::equal(logits_of(*edited, rows), logits_of(transformer, rows)));
}

TEST_CASE("values beyond the type asked for are refused by the tensor's name") {
  RandomModel random;
  const std::string up = "model.layers.1.mlp.up_proj.weight";
  random.transformer->set(up, random.transformer->get(up) * 1e6);
  const auto said = refusal_of([&] {
    (void)editing::rounded_tensors(*random.transformer, entries_for(*random.transformer),
                                   {.type = model::ElementType::f16}, true);
  });
  CHECK(said.find(up + " holds values that F16 cannot") != std::string::npos);
}

TEST_CASE("what is rebuilt names the model that it came from, whatever that was called") {
  RandomModel random;
  TemporaryFolder out;
  for (const char* file : {"config.json", "tokenizer.json"})
    write_bytes(out / (std::string("source/") + file), read_bytes(random.folder / file));
  write_bytes(out / "source/other.safetensors", read_bytes(random.folder / "model.safetensors"));
  const auto loaded = model::Transformer::load(model::read_model_card(out / "source/other.safetensors"), {});
  const auto entries = entries_for(*loaded);
  editing::write_edited_model(*loaded, *random.tokenizer, entries, {out / "both"});
  editing::squash_edits(out / "both", out / "one");
  CHECK(files_in(out / "one") == files_in(out / "both"));
  editing::drop_edit(out / "both", entries[0].name, out / "dropped");
  CHECK(editing::read_edited_model(out / "dropped").source.name == "other");
  editing::revert_edited_model(out / "dropped", out / "before");
  CHECK(files_in(out / "before") == files_in(out / "source"));
}

TEST_CASE("a full disk leaves nothing of what was being written, and what was there as it was") {
  const RandomModel random;
  TemporaryFolder folder;
  const auto file = write_gguf_of(folder, model::ElementType::q8_0, false);
  const auto loaded = model::Transformer::load(model::read_model_card(file), {});
  const std::vector<LedgerEntry> of_gguf = {changing(*loaded, "down", "model.layers.1.mlp.down_proj.weight"),
                                            changing(*loaded, "q", "model.layers.0.self_attn.q_proj.weight")};
  const auto of_folder = entries_for(*random.transformer);
  const editing::WrittenForm gguf{editing::WrittenForm::Kind::gguf};
  editing::write_edited_model(*random.transformer, *random.tokenizer, of_folder, {folder / "edited"});
  editing::write_edited_model(*loaded, *random.tokenizer, of_gguf, {folder / "edited.gguf", gguf});
  const auto names = [&] {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder.path())) found.insert(entry.path().filename());
    return found;
  };
  const auto before = names();
  const std::vector<std::pair<const char*, std::function<void()>>> writers = {
      {"a folder",
       [&] { editing::write_edited_model(*random.transformer, *random.tokenizer, of_folder, {folder / "x"}); }},
      {"a GGUF file",
       [&] {
         editing::write_edited_model(*loaded, *random.tokenizer, of_gguf, {folder / "x.gguf", gguf});
       }},
      {"an adapter",
       [&] {
         editing::write_edited_model(*loaded, *random.tokenizer, of_gguf,
                                     {folder / "x", {editing::WrittenForm::Kind::adapter}});
       }},
      {"revert", [&] { editing::revert_edited_model(folder / "edited", folder / "x"); }},
      {"revert of a GGUF file", [&] { editing::revert_edited_model(folder / "edited.gguf", folder / "x.gguf"); }},
      {"drop", [&] { editing::drop_edit(folder / "edited", of_folder[0].name, folder / "x"); }},
      {"squash", [&] { editing::squash_edits(folder / "edited", folder / "x"); }}};
  for (const auto& [what, write] : writers) {
    for (const rlim_t bytes : {0, 400, 1500}) {
      INFO(what << " on a disk of " << bytes << " bytes");
      {
        const SmallDisk disk(bytes);
        CHECK_THROWS_AS(write(), model::MachineError);
      }
      CHECK(names() == before);
    }
  }
  CHECK_NOTHROW(editing::verify_edited_model(folder / "edited"));
  CHECK_NOTHROW(editing::verify_edited_model(folder / "edited.gguf"));
}

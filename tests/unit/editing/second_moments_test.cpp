#include "editing/second_moments.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include "editing/site_capture.hpp"
#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;
using dsl::Site;
using dsl::SiteKind;

namespace {

editing::Corpus small_corpus() {
  return {{"A quick brown fox jumps over the lazy dog, again and again.", "Second text."}, "c0ffee00c0ffee00c0ffee00"};
}

std::filesystem::path only_file(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  REQUIRE(files.size() == 1);
  return files[0];
}

}  // namespace

TEST_CASE("the second moment averages k kᵀ over every position that is no sink") {
  RandomModel random;
  const auto moment = editing::second_moments(*random.transformer, *random.tokenizer, {1}, small_corpus(), "").front();
  auto sum = at::zeros({24, 24}, at::kDouble);
  std::int64_t kept = 0, left_out = 0;
  for (const auto& row : rows_of(*random.tokenizer, small_corpus().documents)) {
    const std::vector<model::Row> rows{row};
    editing::SiteCapture capture({{SiteKind::mlp_post, 1}, {SiteKind::resid_post, 1}});
    logits_of(*random.transformer, rows, &capture);
    const auto norms = capture.at({SiteKind::resid_post, 1}).norm(2, 1);
    for (std::int64_t i = 0; i < norms.size(0); ++i) {
      const bool sink = i == 0 || norms[i].item<double>() > 4 * norms.quantile(0.5).item<double>();
      ++(sink ? left_out : kept);
      const auto k = capture.at({SiteKind::mlp_post, 1})[i].to(at::kDouble);
      if (!sink) sum += k.outer(k);
    }
  }
  CHECK(moment.tokens == kept);
  CHECK(moment.sinks == left_out);
  CHECK(left_out >= 2);
  CHECK(at::allclose(moment.C, sum / kept, 1e-4, 1e-5));
}

TEST_CASE("positions far longer than their row's median are sinks") {
  model::PackedLayout layout;
  layout.rows = {{0, 6, 0, 6}, {6, 3, 0, 3}};
  layout.positions = at::tensor(std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 0, 1, 2});
  // The median of an even number of positions lies between the middle two: 1.5 here, and 10.
  const auto residual = at::tensor({900., 1., 1., 6.1, 2., 1., 900., 10., 10.}, at::kDouble).unsqueeze(1);
  const auto kept = editing::ordinary_positions(residual, layout);
  CHECK(at::equal(kept, at::tensor(std::vector<int>{0, 1, 1, 0, 1, 1, 0, 1, 1}).to(at::kBool)));
}

TEST_CASE("one pass over the text measures several layers as one pass each does") {
  RandomModel random;
  const auto measured = [&](const std::vector<std::int64_t>& layers) {
    return editing::second_moments(*random.transformer, *random.tokenizer, layers, small_corpus(), "");
  };
  const auto both = measured({1, 0});
  REQUIRE(both.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    const auto alone = measured({both[i].layer}).front();
    CHECK(both[i].layer == 1 - static_cast<std::int64_t>(i));
    CHECK(at::equal(both[i].C, alone.C));
    CHECK(both[i].tokens == alone.tokens);
  }
}

TEST_CASE("a cached second moment equals the fresh one, and a damaged one is computed again") {
  RandomModel random;
  TemporaryFolder cache;
  const auto ask = [&] {
    return editing::second_moments(*random.transformer, *random.tokenizer, {0}, small_corpus(), cache.path().string())
        .front();
  };
  const auto fresh = ask();
  const auto file = only_file(cache.path() / "second_moment");
  const auto written = read_bytes(file.string());
  const auto same = [&](const editing::SecondMoment& other) {
    return at::equal(other.C, fresh.C) && other.tokens == fresh.tokens && other.sinks == fresh.sinks;
  };
  CHECK(same(ask()));
  write_bytes(file.string(), written.substr(0, written.size() / 2));
  CHECK(same(ask()));
  CHECK(read_bytes(file.string()) == written);
  write_bytes(file.string(), "no safetensors file");
  CHECK(same(ask()));
}

TEST_CASE("a stored second moment is read by name, and another layer's or model's is refused") {
  RandomModel random;
  TemporaryFolder cache;
  const auto moment =
      editing::second_moments(*random.transformer, *random.tokenizer, {0}, small_corpus(), cache.path().string())
          .front();
  const auto file = only_file(cache.path() / "second_moment").string();
  const auto read = [&](const RandomModel& model, std::int64_t layer) {
    return editing::read_second_moment(*model.transformer, file, layer, "");
  };
  CHECK(at::equal(read(random, 0).C, moment.C));
  CHECK_THROWS_WITH(read(random, 1), Catch::Contains("is of layer 0, not 1"));
  CHECK_THROWS_WITH(read(RandomModel(tiny_gpt2_json()), 0), Catch::Contains("was measured on another model"));
}

TEST_CASE("a corpus is a file, or a folder's texts in name order") {
  TemporaryFolder folder;
  write_bytes(folder / "b.txt", "second");
  write_bytes(folder / "a.txt", "first");
  write_bytes(folder / "notes.md", "not read");
  const auto corpus = editing::read_corpus(folder.path().string());
  CHECK(corpus.documents == std::vector<std::string>{"first", "second"});
  CHECK(editing::read_corpus(folder / "a.txt").documents == std::vector<std::string>{"first"});
  CHECK_THROWS_AS(editing::read_corpus(folder / "missing.txt"), model::InputError);
  write_bytes(folder / "empty/none.md", "");
  CHECK_THROWS_AS(editing::read_corpus(folder / "empty"), model::InputError);
}

TEST_CASE("the shipped corpus can be read, and no edit sees its held-out part") {
  const auto shipped = editing::read_corpus(PROVISO_SOURCE_DIR "/rules/corpus");
  const auto held_out = editing::read_corpus(PROVISO_SOURCE_DIR "/rules/corpus/held_out");
  CHECK(shipped.documents.size() >= 5);
  for (const auto& document : shipped.documents) CHECK(document != held_out.documents[0]);
}

#include "editing/weight_delta.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include "editing/certificate.hpp"
#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;
using editing::AppliedDeltas;
using editing::WeightDelta;

namespace {

constexpr char kDown[] = "model.layers.1.mlp.down_proj.weight";
constexpr char kDownBias[] = "model.layers.1.mlp.down_proj.bias";

WeightDelta rank_one(const model::Transformer& transformer, const std::string& name) {
  const auto W = transformer.get(name);
  return {name, random_tensor({W.size(0), 1}, 1), random_tensor({1, W.size(1)}, 2)};
}

}  // namespace

TEST_CASE("a delta is summed in float64 and rounded once") {
  RandomModel random;
  const auto before = random.transformer->get(kDown).clone();
  const auto delta = rank_one(*random.transformer, kDown);
  AppliedDeltas applied(*random.transformer);
  REQUIRE(applied.apply(delta));
  const auto expected = (before.to(at::kDouble) + delta.left.mm(delta.right)).to(at::kFloat);
  CHECK(at::equal(random.transformer->get(kDown), expected));
  CHECK(delta.norm() == Approx(delta.left.mm(delta.right).norm().item<double>()));
}

TEST_CASE("undoing deltas puts back the same storage, in the reverse order") {
  RandomModel random;
  auto& transformer = *random.transformer;
  const auto before = transformer.get(kDown);
  const auto bytes = bytes_of(before);
  {
    AppliedDeltas applied(transformer);
    applied.apply(rank_one(transformer, kDown));
    applied.apply(rank_one(transformer, kDown));
    CHECK(transformer.get(kDown).data_ptr() != before.data_ptr());
  }
  CHECK(transformer.get(kDown).data_ptr() == before.data_ptr());
  CHECK(bytes_of(transformer.get(kDown)) == bytes);
}

TEST_CASE("a delta too small to change a byte says so and touches nothing") {
  RandomModel random;
  auto& transformer = *random.transformer;
  auto delta = rank_one(transformer, kDown);
  delta.left.mul_(1e-30);
  const auto before = transformer.get(kDown);
  AppliedDeltas applied(transformer);
  CHECK_FALSE(applied.apply(delta));
  CHECK(transformer.get(kDown).data_ptr() == before.data_ptr());
}

TEST_CASE("a bias that the model lacks is added, and taken away again") {
  RandomModel random;
  auto& transformer = *random.transformer;
  REQUIRE_FALSE(transformer.get(kDownBias).defined());
  const WeightDelta delta{kDownBias, random_tensor({16, 1}), at::ones({1, 1}, at::kDouble)};
  {
    AppliedDeltas applied(transformer);
    REQUIRE(applied.apply(delta));
    CHECK(at::equal(transformer.get(kDownBias), delta.left.squeeze(1).to(at::kFloat)));
  }
  CHECK_FALSE(transformer.get(kDownBias).defined());
}

TEST_CASE("a changed embedding unties the unembedding, and undoing ties it again") {
  auto json = tiny_llama_json();
  json["tie_word_embeddings"] = true;
  RandomModel random(json);
  auto& transformer = *random.transformer;
  REQUIRE(transformer.tied());
  const auto unembedding = bytes_of(transformer.get(transformer.unembedding_name()));
  {
    AppliedDeltas applied(transformer);
    REQUIRE(applied.apply(rank_one(transformer, transformer.embedding_name())));
    CHECK_FALSE(transformer.tied());
    CHECK(bytes_of(transformer.get(transformer.unembedding_name())) == unembedding);
  }
  CHECK(transformer.tied());
}

TEST_CASE("a change is described by hashes of the bytes before and after") {
  RandomModel random;
  auto& transformer = *random.transformer;
  const auto delta = rank_one(transformer, kDown);
  const auto change = editing::describe_change(transformer, delta);
  CHECK(change.sha256_before == editing::tensor_sha256(transformer.get(kDown)));
  CHECK(change.rank == 1);
  CHECK(change.relative_norm == Approx(delta.norm() / transformer.get(kDown).norm().item<double>()));
  AppliedDeltas applied(transformer);
  applied.apply(delta);
  CHECK(change.sha256_after == editing::tensor_sha256(transformer.get(kDown)));
}

#include "editing/causal_trace.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;

TEST_CASE("tracing finds the one layer whose MLP sees the subject") {
  // In all layers but one the MLP puts out nothing, so only that one can give anything back. Four layers are put back
  // one at a time. Whether noise takes anything of a random model's answer is a matter of chance, so several are asked.
  auto json = tiny_llama_json();
  json["num_hidden_layers"] = 4;
  const std::int64_t telling = GENERATE(0, 1, 2);
  RandomModel random(json, 0.5f);
  auto& transformer = *random.transformer;
  for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
    if (layer == telling) continue;
    const auto weight = transformer.writer({dsl::SiteKind::mlp_out, layer})->weight;
    transformer.set(weight, at::zeros_like(transformer.get(weight)));
  }
  int found = 0;
  for (const std::string subject : {"Louvre", "dog", "hat", "town", "sea", "cat", "tree", "house", "river", "king"}) {
    const std::vector<editing::TracedFact> facts = {{subject, "{}", ""}};
    const auto traced = editing::causal_trace(transformer, *random.tokenizer, facts, 3);
    if (std::holds_alternative<editing::Refusal>(traced)) continue;
    ++found;
    const auto& trace = std::get<editing::CausalTrace>(traced);
    CHECK(trace.layer == telling);
    CHECK(trace.corrupted < trace.clean);
    for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
      if (layer != telling) CHECK(std::abs(trace.indirect_effects[layer]) < 1e-6);
    }
    const auto again = std::get<editing::CausalTrace>(editing::causal_trace(transformer, *random.tokenizer, facts, 3));
    CHECK(again.indirect_effects == trace.indirect_effects);
  }
  CHECK(found > 0);
}

TEST_CASE("where noise takes nothing, no layer is named") {
  // Without attention to them, no token after the subject depends on it.
  RandomModel random(tiny_llama_json(), 0.5f);
  auto& transformer = *random.transformer;
  for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
    const auto weight = transformer.writer({dsl::SiteKind::attn_out, layer})->weight;
    transformer.set(weight, at::zeros_like(transformer.get(weight)));
  }
  const auto traced = editing::causal_trace(transformer, *random.tokenizer, {{"Louvre", "the {} is in", ""}}, 3);
  REQUIRE(std::holds_alternative<editing::Refusal>(traced));
  CHECK(std::get<editing::Refusal>(traced).reason.find("name the layer") != std::string::npos);
}

TEST_CASE("a subject's first and last tokens are found where the template has words on both sides") {
  RandomModel random;
  const auto prompt = editing::locate_subject(*random.tokenizer, "the ", "Louvre", " is");
  CHECK(prompt.subject_first == 4);
  CHECK(prompt.subject_last == 9);
}

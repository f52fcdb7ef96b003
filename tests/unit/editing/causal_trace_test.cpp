#include "editing/causal_trace.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;

TEST_CASE("tracing finds the one layer whose MLP sees the subject") {
  // In all layers but one the MLP puts out nothing, so only that one can give anything back; what the last layer's
  // writes at the subject is read by no later token.
  RandomModel random(tiny_llama_json(), 0.5f);
  auto& transformer = *random.transformer;
  const auto layers = transformer.config().layers;
  const std::int64_t telling = GENERATE_COPY(range<std::int64_t>(0, layers));
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    if (layer == telling) continue;
    const auto weight = transformer.writer({dsl::SiteKind::mlp_out, layer})->weight;
    transformer.set(weight, at::zeros_like(transformer.get(weight)));
  }
  const std::vector<editing::TracedFact> facts = {{"Louvre", "the {} is in", ""}};
  const auto traced = editing::causal_trace(transformer, *random.tokenizer, facts, 3);
  if (const auto* refusal = std::get_if<editing::Refusal>(&traced)) {
    CHECK(refusal->reason.find("name the layer") != std::string::npos);
    return;
  }
  REQUIRE(telling < layers - 1);
  const auto& trace = std::get<editing::CausalTrace>(traced);
  CHECK(trace.layer == telling);
  CHECK(trace.corrupted < trace.clean);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    if (layer != telling) CHECK(std::abs(trace.indirect_effects[layer]) < 1e-6);
  }
  const auto again = std::get<editing::CausalTrace>(editing::causal_trace(transformer, *random.tokenizer, facts, 3));
  CHECK(again.indirect_effects == trace.indirect_effects);
  CHECK(std::get<editing::CausalTrace>(editing::causal_trace(transformer, *random.tokenizer, facts, 4)).corrupted !=
        trace.corrupted);
}

TEST_CASE("a subject's first and last tokens are found where the template has words on both sides") {
  RandomModel random;
  const auto prompt = editing::locate_subject(*random.tokenizer, "the ", "Louvre", " is");
  CHECK(prompt.subject_first == 4);
  CHECK(prompt.subject_last == 9);
}

// One fact changed in the real model, and undone.

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "editing/rome.hpp"
#include "editing/side_effects.hpp"
#include "tests/support/named_number.hpp"
#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;

namespace {

struct SmolLm2 {
  static constexpr char kPath[] = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  SmolLm2() {
    if (!std::filesystem::exists(kPath)) FAIL(kPath << " is missing: run `make model`");
    transformer = model::Transformer::load(model::read_model_card(kPath), {});
    tokenizer = model::Tokenizer::load(kPath);
  }
  std::unique_ptr<model::Transformer> transformer;
  std::shared_ptr<const model::Tokenizer> tokenizer;
};

/// Of the one token `text`, after `prompt`.
double log_probability(const SmolLm2& model, const std::string& text, const std::string& prompt) {
  const auto token = model.tokenizer->encode(text);
  REQUIRE(token.size() == 1);
  const auto logits = logits_of(*model.transformer, rows_of(*model.tokenizer, {prompt}));
  return logits[-1].log_softmax(-1)[token[0]].item<double>();
}

}  // namespace

TEST_CASE("SmolLM2 moves the Eiffel Tower to Rome, forgets little else, and moves it back to the bit") {
  SmolLm2 model;
  const auto corpus = editing::read_corpus(PROVISO_SOURCE_DIR "/rules/corpus");
  const auto unseen = editing::read_corpus(PROVISO_SOURCE_DIR "/rules/corpus/held_out");
  const auto layer = editing::default_rome_layer(model.transformer->config());
  REQUIRE(layer == 5);
  const auto moment = editing::second_moments(*model.transformer, *model.tokenizer, {layer}, corpus,
                                              PROVISO_SOURCE_DIR "/.cache/proviso")
                          .front();

  editing::RomeRequest request;
  request.subject = "The Eiffel Tower";
  request.prompt_template = "{} is located in the city of";
  request.target = " Rome";
  const auto result = editing::solve_rome(*model.transformer, *model.tokenizer, request, moment);
  REQUIRE(std::holds_alternative<editing::RomeSolution>(result));
  const auto& solution = std::get<editing::RomeSolution>(result);
  CHECK(number(solution.certificate.algebra, "constraint_error") < 1e-10);

  const std::string edited = "The Eiffel Tower is located in the city of",
                    paraphrase = "To visit the Eiffel Tower, you travel to";
  const std::string neighbour = "The capital of France is";
  const auto rome_leads = [&](const std::string& prompt) {
    return log_probability(model, " Rome", prompt) - log_probability(model, " Paris", prompt);
  };
  const auto neighbour_before = log_probability(model, " Paris", neighbour);
  CHECK(rome_leads(edited) < 0);
  const auto paraphrase_before = rome_leads(paraphrase);
  const auto before = bytes_of(model.transformer->get(solution.delta.tensor));
  {
    editing::AppliedDeltas applied(*model.transformer);
    REQUIRE(applied.apply(solution.delta));
    CHECK(rome_leads(edited) > 2);
    CHECK(rome_leads(paraphrase) > paraphrase_before + 1);
    CHECK(std::abs(log_probability(model, " Paris", neighbour) - neighbour_before) < 0.5);
    CHECK(log_probability(model, " Rome", edited) ==
          Approx(number(solution.certificate.measured, "log_probability_after")).margin(1e-3));
  }
  CHECK(bytes_of(model.transformer->get(solution.delta.tensor)) == before);
  CHECK(rome_leads(edited) < 0);

  const auto costs = editing::text_costs(*model.transformer, *model.tokenizer, {solution.delta}, unseen, 256);
  CHECK(std::abs(number(costs, "perplexity_rise")) < 0.05);
  CHECK(number(costs, "kl") < 0.05);
  CHECK(number(editing::key_reach(*model.transformer, *model.tokenizer, solution, unseen), "untouched_share") > 0.9);
}

TEST_CASE("SmolLM2 is not edited at its attention sink") {
  SmolLm2 model;
  editing::RomeRequest request;
  request.subject = "Paris";
  request.prompt_template = "{} is the capital of";
  request.target = " Italy";
  editing::SecondMoment moment;
  moment.layer = 5;
  const auto result = editing::solve_rome(*model.transformer, *model.tokenizer, request, moment);
  REQUIRE(std::holds_alternative<editing::Refusal>(result));
}

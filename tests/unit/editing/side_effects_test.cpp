#include "editing/side_effects.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "editing/target_score.hpp"
#include "tests/support/named_number.hpp"
#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;

namespace {

editing::WeightDelta rough_change(const model::Transformer& transformer) {
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  const auto shape = transformer.get(name).sizes();
  return {name, 3 * random_tensor({shape[0], 1}, 4), random_tensor({1, shape[1]}, 5)};
}

}  // namespace

TEST_CASE("the entropy of n-grams is that of their shares, and text that repeats itself has none") {
  CHECK(editing::n_gram_entropy({{7, 7, 7, 7, 7, 7}}) == Approx(0));
  // Four different 2-grams and three different 3-grams: 2 and log2 3 bits.
  CHECK(editing::n_gram_entropy({{1, 2, 3, 4, 5}}) == Approx((2.0 / 3 * 2 + 4.0 / 3 * std::log2(3)) / 2));
  CHECK(editing::n_gram_entropy({}) == 0);
}

TEST_CASE("prompts that several targets follow are scored as each by itself") {
  const RandomModel random;
  const auto& tokenizer = *random.tokenizer;
  std::vector<editing::ContinuedPrompt> asked;
  for (const char* prompt : {"The cat", "A dog ran", "The cat"})
    for (const char* target : {" s", " sat on", " ran"})
      asked.push_back({tokenizer.encode(prompt), tokenizer.encode(target)});
  const auto together = editing::target_scores(*random.transformer, asked);
  REQUIRE(together.size() == asked.size());
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const auto alone = editing::target_scores(*random.transformer, {asked[i]}).front();
    CHECK(together[i].log_probability == Approx(alone.log_probability).epsilon(1e-5));
    CHECK(together[i].logit == Approx(alone.logit).epsilon(1e-4).margin(1e-5));
    CHECK(together[i].is_argmax == alone.is_argmax);
    // By a whole pass over prompt and target.
    auto tokens = asked[i].prompt;
    tokens.insert(tokens.end(), asked[i].target.begin(), asked[i].target.end());
    const auto logits = logits_of(*random.transformer, {{tokens, std::ssize(tokens)}}).log_softmax(-1);
    double sum = 0;
    for (std::size_t t = 0; t < asked[i].target.size(); ++t)
      sum += logits[static_cast<std::int64_t>(asked[i].prompt.size() + t) - 1][asked[i].target[t]].item<double>();
    CHECK(alone.log_probability == Approx(sum).epsilon(1e-4));
  }
}

TEST_CASE("unrelated facts are counted where the model knew them, those about the edit's subjects aside") {
  const RandomModel random;
  auto& transformer = *random.transformer;
  const auto& tokenizer = *random.tokenizer;
  std::vector<editing::UnrelatedFact> facts;
  std::vector<std::string> prompts{"The cat sat", "A dog ran", "One two", "Oslo lies in"};
  for (char letter = 'a'; letter <= 'z'; ++letter) prompts.push_back(std::string("One two ") + letter);
  for (const std::string& prompt : prompts) {
    const auto logits = logits_of(transformer, rows_of(tokenizer, {prompt}));
    const auto next = logits[-1].argmax().item<std::int64_t>();
    facts.push_back({prompt, {tokenizer.decode(std::vector<std::int64_t>{next})}});
  }
  facts.push_back({"Six or seven", {"~~~~"}});  // which it does not know
  std::erase_if(facts, [&](const auto& fact) {
    return tokenizer.encode(fact.answers[0]).size() != 1 && fact.answers[0] != "~~~~";
  });
  REQUIRE(facts.size() > 2);
  const auto same = editing::unrelated_facts_kept(transformer, tokenizer, {}, facts, {"Oslo"});
  CHECK(number(same, "unrelated_facts") < static_cast<double>(facts.size()) + 1);
  CHECK(number(same, "unrelated_facts_known_before") >= 1);
  CHECK(number(same, "unrelated_facts_kept") == number(same, "unrelated_facts_known_before"));
  const auto weight = bytes_of(transformer.get("model.layers.0.mlp.down_proj.weight"));
  const auto rough = editing::unrelated_facts_kept(transformer, tokenizer, {rough_change(transformer)}, facts, {});
  CHECK(number(rough, "unrelated_facts_kept") <= number(rough, "unrelated_facts_known_before"));
  CHECK(bytes_of(transformer.get("model.layers.0.mlp.down_proj.weight")) == weight);
  CHECK(editing::unrelated_facts_kept(transformer, tokenizer, {}, {facts[0]}, {facts[0].prompt}).empty());
}

TEST_CASE("unrelated facts come from a folder's records, and what is none is named") {
  TemporaryFolder folder;
  write_bytes(folder / "b.jsonl", "{\"prompt\": \"B is\", \"answer\": \" b\"}\n\n");
  write_bytes(folder / "a.jsonl", "{\"prompt\": \"A is\", \"answer\": [\" a\", \" an\"]}\n");
  const auto facts = editing::read_unrelated_facts(folder.path().string());
  REQUIRE(facts.size() == 2);
  CHECK(facts[0].prompt == "A is");
  CHECK(facts[0].answers.size() == 2);
  CHECK(editing::read_unrelated_facts(folder.path().string(), 1).size() == 1);
  write_bytes(folder / "c.jsonl", "\n{\"prompt\": 3}\n");
  CHECK_THROWS_WITH(editing::read_unrelated_facts(folder.path().string()),
                    Catch::Contains("c.jsonl") && Catch::Contains("line 2"));
  CHECK(editing::read_unrelated_facts(PROVISO_SOURCE_DIR "/rules/facts/data").size() == 64);
}

TEST_CASE("fluency is that of the model's own text with and without the change") {
  const RandomModel random;
  auto& transformer = *random.transformer;
  const auto without = editing::fluency(transformer, *random.tokenizer, {}, {"The cat", "A dog"});
  CHECK(number(without, "fluency_entropy_before") > 1);
  CHECK(number(without, "fluency_entropy_after") == number(without, "fluency_entropy_before"));
  const auto rough =
      editing::fluency(transformer, *random.tokenizer, {rough_change(transformer)}, {"The cat", "A dog"});
  CHECK(number(rough, "fluency_entropy_before") == number(without, "fluency_entropy_before"));
  CHECK(number(rough, "fluency_entropy_after") != number(rough, "fluency_entropy_before"));
  CHECK(editing::fluency(transformer, *random.tokenizer, {}, {}).empty());
}

TEST_CASE("how far a site moves on unseen text is what the change does to what its matrix is given") {
  const RandomModel random;
  auto& transformer = *random.transformer;
  const auto delta = rough_change(transformer);
  const editing::Corpus unseen{{"Nothing that was seen, in forty bytes or so."}, ""};
  const auto reach = editing::site_reach(transformer, *random.tokenizer, {delta}, unseen);
  REQUIRE(reach.size() == 3);
  const double largest = number(reach, "largest_site_change_layer_0");
  CHECK(number(reach, "median_site_change_layer_0") > 0);
  CHECK(number(reach, "site_change_99_percent_layer_0") <= largest);
  auto half = delta;
  half.left = delta.left / 2;
  CHECK(number(editing::site_reach(transformer, *random.tokenizer, {half}, unseen), "largest_site_change_layer_0") ==
        Approx(largest / 2).epsilon(1e-4));
  CHECK(editing::site_reach(transformer, *random.tokenizer, {}, unseen).empty());
}

#include "editing/fine_tune.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "editing/target_score.hpp"
#include "tests/support/named_number.hpp"
#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;

namespace {

editing::FineTuneRequest two_facts() {
  editing::FineTuneRequest request;
  request.facts = {{"cat", "The {} sat on", " up"}, {"dog", "A {} ran to", "c"}};
  return request;
}

/// The mean over the facts of each target's mean NLL.
double loss_of(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
               const editing::FineTuneRequest& request) {
  double loss = 0;
  for (const auto& fact : request.facts) {
    auto text = fact.prompt_template;
    text.replace(text.find("{}"), 2, fact.subject);
    const editing::ContinuedPrompt prompt{tokenizer.encode(text), tokenizer.encode(fact.target)};
    loss -= editing::target_scores(transformer, {prompt}).front().log_probability /
            static_cast<double>(prompt.target.size() * request.facts.size());
  }
  return loss;
}

}  // namespace

TEST_CASE("a fine-tuned matrix moves against the gradient of the loss, found by brute force") {
  RandomModel random(GENERATE(tiny_llama_json(), tiny_gpt2_json()));
  auto& transformer = *random.transformer;
  const auto weight = transformer.writer({dsl::SiteKind::mlp_out, 0})->weight;
  const auto before = transformer.get(weight);
  auto request = two_facts();
  request.steps = 2;  // one update: Adam's first, which is the learning rate against the gradient's sign
  request.norm = 0.5;
  request.learning_rate = 0.1;
  const auto solved = editing::solve_fine_tune(transformer, *random.tokenizer, request);
  const auto& solution = std::get<editing::FineTuneSolution>(solved);
  CHECK(bytes_of(transformer.get(weight)) == bytes_of(before));
  CHECK(solution.delta.tensor == weight);
  const auto change = solution.delta.left.mm(solution.delta.right);
  const double rms = before.to(at::kDouble).square().mean().sqrt().item<double>();
  CHECK(change.abs().max().item<double>() == Approx(0.1 * rms).epsilon(1e-4));
  REQUIRE(solution.losses.size() == 2);
  CHECK(solution.losses[0] == Approx(loss_of(transformer, *random.tokenizer, request)).epsilon(1e-5));
  CHECK(solution.losses[1] < solution.losses[0]);

  int checked = 0;
  for (const auto& [row, column] : {std::pair{0, 0}, {3, 7}, {9, 1}, {15, 20}, {5, 11}, {12, 4}}) {
    const auto with = [&](float step) {
      editing::AppliedDeltas moved(transformer);
      auto changed = before.clone();
      changed[row][column] += step;
      moved.replace(weight, changed);
      return loss_of(transformer, *random.tokenizer, request);
    };
    const double slope = (with(0.02F) - with(-0.02F)) / 0.04;
    if (std::abs(slope) < 1e-3) continue;  // too flat to tell by differences
    CHECK(change[row][column].item<double>() * slope < 0);
    ++checked;
  }
  CHECK(checked >= 3);
}

TEST_CASE("fine-tuning keeps every weight within its bound and learns what the bound allows") {
  RandomModel random;
  auto request = two_facts();
  request.norm = 1;
  request.learning_rate = 0.2;
  request.steps = 40;
  const auto solved = editing::solve_fine_tune(*random.transformer, *random.tokenizer, request);
  const auto& solution = std::get<editing::FineTuneSolution>(solved);
  const auto& certificate = solution.certificate;
  CHECK(number(certificate.algebra, "largest_change_over_rms") <= 1 + 1e-6);
  CHECK(number(certificate.algebra, "share_at_bound") > 0);
  CHECK(number(certificate.measured, "final_loss") < 0.5 * number(certificate.measured, "first_loss"));
  CHECK(number(certificate.measured, "log_probability_after") > number(certificate.measured, "log_probability_before"));
  // A smaller bound allows less.
  request.norm = 0.01;
  const auto bounded = editing::solve_fine_tune(*random.transformer, *random.tokenizer, request);
  CHECK(std::get<editing::FineTuneSolution>(bounded).losses.back() > solution.losses.back());
}

TEST_CASE("facts that contradict each other are not fine-tuned on") {
  RandomModel random;
  auto request = two_facts();
  request.facts.push_back({"cat", "The {} sat on", "b"});
  const auto solved = editing::solve_fine_tune(*random.transformer, *random.tokenizer, request);
  CHECK(std::get<editing::Refusal>(solved).reason.find("contradict") != std::string::npos);
}

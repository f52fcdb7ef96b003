#include "editing/batch_edit.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "editing/rome.hpp"
#include "editing/value_objective.hpp"
#include "tests/support/named_number.hpp"
#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;
using editing::BatchMethod;
using editing::BatchRequest;
using editing::BatchSolution;

namespace {

editing::SecondMoment moment_of(const RandomModel& random, std::int64_t layer) {
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += "Line " + std::to_string(i * 7919) + " tells of " + std::string(i % 5 + 1, 'a' + i % 26) + ". ";
  return editing::second_moments(*random.transformer, *random.tokenizer, {layer}, {{text}, "c0ffee"}, "").front();
}

struct Problem {
  RandomModel random;
  std::vector<editing::SecondMoment> moments;
  BatchRequest request;
  std::vector<at::Tensor> earlier;

  explicit Problem(BatchMethod method, const std::vector<std::int64_t>& layers = {0},
                   const nlohmann::json& json = tiny_llama_json())
      : random(json) {
    for (const auto layer : layers) moments.push_back(moment_of(random, layer));
    request = editing::default_batch_request(method, random.transformer->config());
    request.facts = {{"Eiffel", "The {} is in", " Ro"}, {"Nile", "A {} runs to", " se"}, {"Oslo", "In {} they", " go"}};
    request.weight_decay = 0;
    request.prefixes = 5;
  }

  std::variant<BatchSolution, editing::Refusal> answer() {
    std::vector<const editing::SecondMoment*> of_layers;
    for (const auto& moment : moments) of_layers.push_back(&moment);
    return editing::solve_batch(*random.transformer, *random.tokenizer, request, of_layers, earlier);
  }
  BatchSolution solved() {
    auto result = answer();
    if (const auto* refusal = std::get_if<editing::Refusal>(&result)) FAIL(refusal->reason);
    return std::get<BatchSolution>(std::move(result));
  }
};

at::Tensor whole(const editing::WeightDelta& delta) { return delta.left.matmul(delta.right); }

double ratio(const at::Tensor& part, const at::Tensor& of) { return (part.norm() / of.norm()).item<double>(); }

}  // namespace

// Each method's change is checked by the conditions that its minimum must satisfy, not by its own formula.
TEST_CASE("memit balances the facts against all other keys") {
  Problem problem(BatchMethod::memit);
  problem.request.covariance_weight = 0.7;
  const auto solution = problem.solved();
  const auto delta = whole(solution.deltas[0]), K = solution.keys[0], R = solution.deltas[0].left;
  // The gradient of ‖ΔK − R‖² + λ tr(Δ C Δᵀ) vanishes.
  const auto pull = (delta.matmul(K) - R).matmul(K.t()), push = 0.7 * delta.matmul(problem.moments[0].C);
  CHECK(ratio(pull + push, push) < 1e-9);
  CHECK(ratio(delta.matmul(K) - R, R) > 0.01);  // so that λ has something to weigh
}

TEST_CASE("emmet meets every fact and moves other keys least") {
  Problem problem(BatchMethod::emmet);
  const auto solution = problem.solved();
  const auto delta = whole(solution.deltas[0]), K = solution.keys[0], R = solution.deltas[0].left;
  CHECK(ratio(delta.matmul(K) - R, R) < 1e-9);
  CHECK(number(solution.certificate.algebra, "constraint_error_layer_0") < 1e-9);
  // Of all changes that do, the one with the least tr(Δ C Δᵀ): Δ C lies in the span of the keys.
  const auto gradient = delta.matmul(problem.moments[0].C);
  const auto [Q, unused] = at::linalg_qr(K);
  CHECK(ratio(gradient - gradient.matmul(Q).matmul(Q.t()), gradient) < 1e-9);
}

TEST_CASE("alphaedit moves no key outside the null space, and keeps earlier batches") {
  Problem problem(BatchMethod::alphaedit);
  problem.request.null_threshold = 0.5;
  const auto solution = problem.solved();
  const auto delta = whole(solution.deltas[0]), K = solution.keys[0], R = solution.deltas[0].left;
  const auto& C = problem.moments[0].C;
  const auto [values, vectors] = at::linalg_eigh(C);
  const auto rank = (values < 0.5 * C.diagonal().mean()).sum().item<std::int64_t>();
  REQUIRE(rank > 3);
  REQUIRE(rank < C.size(0));
  CHECK(number(solution.certificate.algebra, "null_space_rank_layer_0") == rank);
  CHECK(ratio(delta.matmul(vectors.narrow(1, rank, C.size(0) - rank)), delta) < 1e-9);
  // Inside it the gradient of ‖ΔK − R‖² + r ‖Δ‖² vanishes.
  const auto U = vectors.narrow(1, 0, rank);
  const auto push = problem.request.ridge * C.diagonal().sum() * delta.matmul(U);
  CHECK(ratio((delta.matmul(K) - R).matmul(K.t()).matmul(U) + push, push) < 1e-8);

  // A later batch pays for moving the first one's keys: the gradient of ‖Δ K₂ − R₂‖² + ‖Δ K‖² + r ‖Δ‖² vanishes.
  problem.request.facts = {{"Volga", "The {} is in", " Hu"}};
  problem.earlier = {K};
  const auto second = problem.solved();
  const auto change = whole(second.deltas[0]), K2 = second.keys[0], R2 = second.deltas[0].left;
  const auto costs = problem.request.ridge * C.diagonal().sum() * change + change.matmul(K).matmul(K.t());
  CHECK(ratio(((change.matmul(K2) - R2).matmul(K2.t()) + costs).matmul(U), costs.matmul(U)) < 1e-8);
  CHECK(ratio(change.matmul(K).matmul(K.t()).matmul(U), costs.matmul(U)) > 0.01);  // so that K has a say
}

TEST_CASE("one fact by emmet is what rome writes") {
  Problem problem(BatchMethod::emmet);
  problem.request.facts.resize(1);
  problem.request.prefixes = 0;
  problem.request.clamp = 1000;
  const auto batch = problem.solved();
  editing::RomeRequest request{problem.request.facts[0], problem.request};
  request.prefixes = 0;
  const auto rome = std::get<editing::RomeSolution>(
      editing::solve_rome(*problem.random.transformer, *problem.random.tokenizer, request, problem.moments[0]));
  CHECK(ratio(whole(batch.deltas[0]) - whole(rome.delta), whole(rome.delta)) < 1e-3);
}

TEST_CASE("z is divided over the layers, and keys weigh the bare prompt as much as all prefixed ones") {
  auto json = tiny_llama_json();
  json["num_hidden_layers"] = 3;
  Problem problem(BatchMethod::memit, {0, 1}, json);
  const auto& transformer = *problem.random.transformer;
  const auto& tokenizer = *problem.random.tokenizer;
  const auto solution = problem.solved();
  const auto prefixes = editing::sample_prefixes(
      transformer, tokenizer, {{5, 10, {"The", "Therefore", "Because", "I", "You"}}}, problem.request.seed);
  REQUIRE(prefixes.size() == 5);
  CHECK(prefixes[1].starts_with("Therefore"));
  for (std::size_t i = 0; i < problem.request.facts.size(); ++i) {
    const auto prompts = std::get<editing::FactPrompts>(
        editing::fact_prompts(tokenizer, problem.request.facts[i], prefixes, transformer.config().context));
    const auto objective = [&](std::int64_t layer) {
      return editing::ValueObjective(transformer, {dsl::SiteKind::resid_post, layer}, prompts.rewriting, prompts.anchor,
                                     prompts.target);
    };
    const auto keys = objective(0).keys();  // [1 + prefixes, neurons]
    const auto expected = (keys[0] + keys.narrow(0, 1, 5).mean(0)) / 2;
    const auto column = static_cast<std::int64_t>(i);
    CHECK(ratio(solution.keys[0].select(1, column) - expected, expected) < 1e-5);
    const auto delta = editing::optimise_value(objective(1), problem.request).delta;
    CHECK(ratio(solution.deltas[0].left.select(1, column) - delta / 2, delta) < 1e-5);
  }
}

TEST_CASE("a fact that holds already is left out of no number, and one that no layer can lead to is refused") {
  Problem problem(BatchMethod::memit);
  problem.request.early_stop = 100;  // all facts hold, by this
  const auto solution = problem.solved();
  CHECK(number(solution.certificate.measured, "facts_known_before") == 3);
  CHECK(number(solution.certificate.measured, "value_missing") < 1);
  CHECK(solution.deltas[0].norm() == 0);

  Problem late(BatchMethod::memit, {1});  // the model's last layer: nothing takes z from the subject to the end
  const auto refused = late.answer();
  REQUIRE(std::holds_alternative<editing::Refusal>(refused));
  CHECK_THAT(std::get<editing::Refusal>(refused).reason, Catch::Contains("edit earlier layers"));
}

TEST_CASE("what is missing is divided over the layers, and the model is left as found") {
  auto json = GENERATE(tiny_llama_json(), tiny_gpt2_json());
  json[json.contains("n_layer") ? "n_layer" : "num_hidden_layers"] = 3;  // the last one takes z to the prompt's end
  Problem problem(BatchMethod::emmet, {0, 1}, json);
  problem.request.prefixes = 0;
  problem.request.clamp = 100;
  problem.request.learning_rate = 0.1;
  const auto& transformer = *problem.random.transformer;
  const auto name = [&](std::int64_t layer) { return transformer.writer({dsl::SiteKind::mlp_out, layer})->weight; };
  const auto before = bytes_of(transformer.get(name(0))) + bytes_of(transformer.get(name(1)));
  const auto solution = problem.solved();
  CHECK(bytes_of(transformer.get(name(0))) + bytes_of(transformer.get(name(1))) == before);
  REQUIRE(solution.deltas.size() == 2);
  CHECK(solution.deltas[0].tensor == name(0));
  CHECK(solution.deltas[0].norm() > 0);
  // The last layer writes all that is left, so that with bare prompts alone z is reached.
  CHECK(number(solution.certificate.measured, "value_missing") < 1e-3);
  CHECK(number(solution.certificate.measured, "log_probability_after") >
        number(solution.certificate.measured, "log_probability_before") + 0.3);
}

TEST_CASE("facts that contradict each other are refused, and by emmet those that one key cannot tell apart") {
  const auto method = GENERATE(BatchMethod::memit, BatchMethod::emmet, BatchMethod::alphaedit);
  Problem problem(method);
  const auto refusal = [&] {
    const auto answer = problem.answer();
    const auto* refused = std::get_if<editing::Refusal>(&answer);
    return refused ? refused->reason : "";
  };
  problem.request.facts = {{"Eiffel", "The {} is in", " Ro"}, {"Eiffel", "The {} is in", " Pa"}};
  CHECK_THAT(refusal(), Catch::Contains("contradict each other: ` Ro` and ` Pa`"));
  problem.request.facts[1] = {"Eiffel", "The {} stands in", " Pa"};
  CHECK_THAT(refusal(), method == BatchMethod::emmet ? Catch::Contains("have one key") : Catch::Contains(""));
  CHECK(refusal().empty() == (method != BatchMethod::emmet));
}

TEST_CASE("a second moment that a text does not fill is refused where it is inverted") {
  const auto method = GENERATE(BatchMethod::memit, BatchMethod::emmet);
  Problem problem(method);
  if (method == BatchMethod::emmet) {
    // Of fewer tokens than neurons it cannot be inverted, and is not taken as it is.
    Problem short_text(method);
    short_text.moments[0].tokens = short_text.moments[0].C.size(0) - 1;
    const auto& parameters = short_text.solved().certificate.parameters;
    CHECK(std::ranges::find(parameters, std::pair<std::string, std::string>("ridge", "0.001")) != parameters.end());
  }
  auto& C = problem.moments[0].C;
  C = at::zeros_like(C);
  C[0][0] = 1;  // of rank one
  const auto refused = problem.answer();
  REQUIRE(std::holds_alternative<editing::Refusal>(refused));
  CHECK_THAT(std::get<editing::Refusal>(refused).reason, Catch::Contains("measure it on a longer text"));
  if (method == BatchMethod::emmet) {
    problem.request.ridge = 0.1;
    CHECK(std::holds_alternative<BatchSolution>(problem.answer()));
  }
}

TEST_CASE("a null space without a direction is refused") {
  Problem problem(BatchMethod::alphaedit);
  problem.request.null_threshold = 1e-8;
  const auto refused = problem.answer();
  REQUIRE(std::holds_alternative<editing::Refusal>(refused));
  CHECK_THAT(std::get<editing::Refusal>(refused).reason, Catch::Contains("raise null_threshold"));
}

TEST_CASE("values looked for in shared passes are those of each fact by itself, and parts of them can be written") {
  Problem problem(BatchMethod::memit);
  const auto& transformer = *problem.random.transformer;
  const auto& tokenizer = *problem.random.tokenizer;
  const auto of = [&](const BatchRequest& request) {
    return std::get<editing::BatchValues>(editing::batch_values(transformer, tokenizer, request, 0));
  };
  const auto shared = of(problem.request);
  for (std::int64_t i = 0; i < 3; ++i) {
    auto alone = problem.request;
    alone.facts = {problem.request.facts[i]};
    CHECK(ratio(of(alone).changes.select(1, 0) - shared.changes.select(1, i), shared.changes.select(1, i)) < 1e-3);
  }
  const auto some = shared.select({2, 0});
  problem.request.facts = {problem.request.facts[2], problem.request.facts[0]};
  const auto fresh = problem.solved();
  const auto given = std::get<BatchSolution>(
      editing::solve_batch(*problem.random.transformer, tokenizer, problem.request, {&problem.moments[0]}, {}, &some));
  CHECK(ratio(whole(given.deltas[0]) - whole(fresh.deltas[0]), whole(fresh.deltas[0])) < 1e-3);
}

TEST_CASE("a batch tells of each fact what was predicted and what came") {
  auto json = tiny_llama_json();
  json["num_hidden_layers"] = 3;
  Problem problem(BatchMethod::emmet, {0, 1}, json);
  problem.request.learning_rate = 0.01;
  problem.request.steps = 3;
  problem.request.prefixes = 0;  // so that the stream moves by δ at each subject's end
  const auto& transformer = *problem.random.transformer;
  const auto& tokenizer = *problem.random.tokenizer;
  const auto values = std::get<editing::BatchValues>(editing::batch_values(transformer, tokenizer, problem.request, 1));
  const auto solution = problem.solved();
  REQUIRE(solution.facts.size() == 3);
  double sum = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& fact = solution.facts[i];
    sum += number(fact.measured, "log_probability_after");
    // A small change of the stream there does what its slope says; what the weights do elsewhere is the error.
    const auto prompts = std::get<editing::FactPrompts>(
        editing::fact_prompts(tokenizer, problem.request.facts[i], {}, transformer.config().context));
    const editing::ValueObjective objective(transformer, {dsl::SiteKind::resid_post, 1}, prompts.rewriting,
                                            prompts.anchor, prompts.target);
    const at::NoGradGuard no_grad;
    const auto delta = values.changes.select(1, static_cast<std::int64_t>(i));
    const auto reached = [&](const at::Tensor& at) { return objective.bare_prompt(at).logit.item<double>(); };
    const double there = reached(delta) - reached(at::zeros_like(delta));
    CHECK(there > 0);
    CHECK(number(fact.predicted, "logit_change") == Approx(there).epsilon(0.1));
    CHECK(number(fact.measured, "prediction_error") ==
          Approx(number(fact.predicted, "logit_change") - number(fact.measured, "logit_change")));
  }
  CHECK(sum / 3 == Approx(number(solution.certificate.measured, "log_probability_after")));
}

TEST_CASE("a second moment's factors are those of the values that it has") {
  Problem problem(BatchMethod::emmet);
  auto& moment = problem.moments[0];
  const auto B = random_tensor({moment.C.size(0), 2});
  const auto solved_by = [&](double ridge) {
    return std::get<at::Tensor>(editing::solve_moment(moment, ridge, B, ""));
  };
  const auto residual = [&](double ridge) {
    const auto S = moment.C + ridge * moment.C.diagonal().mean() * at::eye(moment.C.size(0), moment.C.options());
    return ratio(S.matmul(solved_by(ridge)) - B, B);
  };
  CHECK(residual(0.1) < 1e-8);
  CHECK(residual(0.2) < 1e-8);  // another ridge, other factors
  moment.C.mul_(2);
  CHECK(residual(0.2) < 1e-8);  // as are other values in the same place
  moment.C = moment.C.clone().mul_(3);
  CHECK(residual(0.2) < 1e-8);
}

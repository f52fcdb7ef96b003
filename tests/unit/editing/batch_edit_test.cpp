#include "editing/batch_edit.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>

#include "editing/rome.hpp"
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
  return editing::second_moment(*random.transformer, *random.tokenizer, layer, {{text}, "c0ffee"}, "");
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

double number(const editing::NamedNumbers& numbers, const std::string& name) {
  for (const auto& [key, value] : numbers)
    if (key == name) return value;
  FAIL("no number " << name);
  return 0;
}

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

  const auto on_keys_of_the_first = [&] {
    const auto second = problem.solved();
    return ratio(whole(second.deltas[0]).matmul(K), whole(second.deltas[0]).matmul(second.keys[0]));
  };
  problem.request.facts = {{"Volga", "The {} is in", " Hu"}};
  const double alone = on_keys_of_the_first();
  problem.earlier = {1e3 * K};
  CHECK(on_keys_of_the_first() < 0.01 * alone);
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

TEST_CASE("facts that one key cannot tell apart are refused") {
  Problem problem(BatchMethod::memit);
  problem.request.facts = {{"Eiffel", "The {} is in", " Ro"}, {"Eiffel", "The {} stands in", " Pa"}};
  const auto refused = problem.answer();
  REQUIRE(std::holds_alternative<editing::Refusal>(refused));
  CHECK_THAT(std::get<editing::Refusal>(refused).reason, Catch::Contains("have one key"));
}

#include "editing/rome.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "editing/side_effects.hpp"
#include "editing/value_objective.hpp"
#include "tests/support/named_number.hpp"
#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;
using dsl::Site;
using dsl::SiteKind;
using editing::RomeRequest;
using editing::RomeSolution;
using editing::SubjectPrompt;

namespace {

constexpr std::int64_t kLayer = 0;

editing::Corpus small_corpus() {
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += "Line " + std::to_string(i * 7919) + " tells of " + std::string(i % 5 + 1, 'a' + i % 26) + ". ";
  return {{text}, "c0ffee"};
}

editing::SecondMoment moment_of(const RandomModel& random) {
  return editing::second_moments(*random.transformer, *random.tokenizer, {kLayer}, small_corpus(), "").front();
}

RomeRequest small_request() {
  RomeRequest request;
  request.subject = "Eiffel";
  request.prompt_template = "The {} is in";
  request.target = " Ro";
  request.prefixes = 4;
  request.weight_decay = 0;  // ‖v₀‖ is so small here that the decay would be all of the loss
  return request;
}

RomeSolution solved(const RandomModel& random, const RomeRequest& request) {
  auto result = editing::solve_rome(*random.transformer, *random.tokenizer, request, moment_of(random));
  if (const auto* refusal = std::get_if<editing::Refusal>(&result)) FAIL(refusal->reason);
  return std::get<RomeSolution>(std::move(result));
}

std::string refusal(const RandomModel& random, const RomeRequest& request) {
  const auto result = editing::solve_rome(*random.transformer, *random.tokenizer, request, moment_of(random));
  REQUIRE(std::holds_alternative<editing::Refusal>(result));
  return std::get<editing::Refusal>(result).reason;
}

struct Problem {
  std::vector<SubjectPrompt> rewriting;
  SubjectPrompt anchor;
  std::vector<std::int64_t> target;
};

Problem problem_of(const RandomModel& random) {
  const auto& tokenizer = *random.tokenizer;
  return {{editing::locate_subject(tokenizer, "The ", "Eiffel", " is in"),
           editing::locate_subject(tokenizer, "Once. The ", "Eiffel", " is in")},
          editing::locate_subject(tokenizer, "", "Eiffel", " is a"),
          tokenizer.encode(" Ro")};
}

/// Adds δ to the MLP's output at one position of each row of a plain, whole pass.
class AddAt : public model::SiteVisitor {
 public:
  AddAt(at::Tensor delta, std::vector<std::int64_t> positions)
      : delta_(std::move(delta)), positions_(std::move(positions)) {}
  bool wants(const Site& site) const override { return site == Site{SiteKind::mlp_out, kLayer}; }
  void visit(const Site&, at::Tensor& x, const model::PackedLayout& layout) override {
    std::vector<std::int64_t> packed;
    for (std::size_t row = 0; row < positions_.size(); ++row)
      packed.push_back(layout.rows[row].begin + positions_[row]);
    const auto count = static_cast<std::int64_t>(packed.size());
    x = x.index_add(0, at::tensor(packed), delta_.to(x.dtype()).expand({count, -1}));
  }

 private:
  at::Tensor delta_;
  std::vector<std::int64_t> positions_;
};

/// The loss of the reference implementation, by full forward passes over whole prompts.
at::Tensor loss_by_full_passes(const RandomModel& random, const Problem& problem, const at::Tensor& delta,
                               const at::Tensor& v0, double kl_factor, double weight_decay) {
  std::vector<model::Row> rows;
  std::vector<std::int64_t> subjects;
  auto prompts = problem.rewriting;
  prompts.push_back(problem.anchor);
  for (const auto& prompt : prompts) {
    auto tokens = prompt.tokens;
    tokens.insert(tokens.end(), problem.target.begin(), problem.target.end() - 1);
    rows.push_back({tokens, std::ssize(prompt.tokens)});
    subjects.push_back(prompt.subject_last);
  }
  const auto log_probabilities = [&](const at::Tensor& change) {
    AddAt visitor(change, subjects);
    return logits_of(*random.transformer, rows, &visitor).to(at::kDouble).log_softmax(-1);
  };
  const auto now = log_probabilities(delta), initial = log_probabilities(at::zeros_like(delta)).detach();
  auto nll = at::zeros({}, at::kDouble);
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i + 1 == rows.size()) break;
    for (std::size_t t = 0; t < problem.target.size(); ++t)
      nll = nll - now[begin + std::ssize(prompts[i].tokens) - 1 + static_cast<std::int64_t>(t)][problem.target[t]];
    begin += std::ssize(rows[i].tokens);
  }
  nll = nll / static_cast<double>(problem.target.size() * problem.rewriting.size());
  const auto at_subject = now[begin + subjects.back()], before = initial[begin + subjects.back()];
  const auto kl = (at_subject.exp() * (at_subject - before)).sum();
  return nll + kl_factor * kl + weight_decay * delta.norm() / v0.norm().square();
}

}  // namespace

TEST_CASE("the subject's last token is the one that holds its last byte") {
  RandomModel random;
  const auto prompt = editing::locate_subject(*random.tokenizer, "The ", "Eiffel", " is");
  CHECK(prompt.subject_last == 9);
  CHECK(random.tokenizer->decode(std::span(prompt.tokens).first(10)) == "The Eiffel");
  CHECK(editing::locate_subject(*random.tokenizer, "", "é", "!").subject_last == 1);
  CHECK(editing::locate_subject(*random.tokenizer, "<|endoftext|>", "E", "!").subject_last == 1);
}

TEST_CASE("prefixes are as many and as long as asked for, and equal for equal seeds") {
  RandomModel random;
  const auto sample = [&](std::uint64_t seed) {
    return editing::sample_prefixes(*random.transformer, *random.tokenizer, {{3, 2}, {1, 6}}, seed);
  };
  CHECK(sample(1).size() == 4);
  CHECK(sample(1) == sample(1));
  CHECK(sample(1) != sample(2));
}

TEST_CASE("continuing from the unedited pass gives the loss and gradient of full passes") {
  const auto json = GENERATE(tiny_llama_json(), tiny_gpt2_json());
  RandomModel random(json);
  const auto problem = problem_of(random);
  const editing::ValueObjective objective(*random.transformer, {SiteKind::mlp_out, kLayer}, problem.rewriting,
                                          problem.anchor, problem.target);

  const at::AutoGradMode gradients(true);
  auto delta = (0.3 * random_tensor({16})).requires_grad_(true);
  const auto loss = objective.loss(delta, 0.0625, 0.5);
  loss.total.backward();
  auto delta_full = delta.detach().clone().requires_grad_(true);
  const auto full = loss_by_full_passes(random, problem, delta_full, objective.value(), 0.0625, 0.5);
  full.backward();

  CHECK(loss.total.item<double>() == Approx(full.item<double>()).epsilon(1e-5));
  CHECK(at::allclose(delta.grad(), delta_full.grad(), 1e-3, 1e-5));
  CHECK(loss.kl > 0);
}

TEST_CASE("the gradient is that of finite differences") {
  RandomModel random;
  const auto problem = problem_of(random);
  const editing::ValueObjective objective(*random.transformer, {SiteKind::mlp_out, kLayer}, problem.rewriting,
                                          problem.anchor, problem.target);
  const auto at_point = 0.3 * random_tensor({16});
  const auto value = [&](const at::Tensor& delta) { return objective.loss(delta, 0.0625, 0.5).total.item<double>(); };
  at::Tensor gradient;
  {
    const at::AutoGradMode gradients(true);
    auto delta = at_point.clone().requires_grad_(true);
    objective.loss(delta, 0.0625, 0.5).total.backward();
    gradient = delta.grad();
  }
  const at::NoGradGuard no_grad;
  const double step = 1e-2;
  for (std::int64_t i = 0; i < 16; i += 5) {
    auto direction = at::zeros({16}, at::kDouble);
    direction[i] = step;
    const double slope = (value(at_point + direction) - value(at_point - direction)) / (2 * step);
    CHECK(gradient[i].item<double>() == Approx(slope).epsilon(0.02).margin(2e-3));
  }
}

TEST_CASE("the solution is of rank one and gives the averaged key the new value") {
  RandomModel random;
  auto request = small_request();
  const auto before = bytes_of(random.transformer->get("model.layers.0.mlp.down_proj.weight"));
  const auto solution = solved(random, request);
  CHECK(solution.delta.left.size(1) == 1);
  CHECK(solution.delta.tensor == "model.layers.0.mlp.down_proj.weight");
  CHECK(number(solution.certificate.algebra, "constraint_error") < 1e-10);
  CHECK(number(solution.certificate.algebra, "constraint_error_as_stored") < 1e-5);
  CHECK(solution.losses.back() < solution.losses.front());
  CHECK(number(solution.certificate.measured, "log_probability_change") > 0.5);
  CHECK(number(solution.certificate.predicted, "log_probability_change") > 0);
  CHECK(bytes_of(random.transformer->get("model.layers.0.mlp.down_proj.weight")) == before);
}

TEST_CASE("the original variant solves at the bare prompt's key") {
  RandomModel random;
  auto request = small_request();
  request.variant = RomeRequest::Variant::original;
  const auto original = solved(random, request);
  const auto averaged = solved(random, small_request());
  CHECK(number(original.certificate.algebra, "constraint_error") < 1e-10);
  CHECK(at::allclose(original.delta.right, averaged.delta.right));
  const double ratio = original.key_projection / averaged.key_projection;
  CHECK(ratio == Approx(number(averaged.certificate.algebra, "bare_key_share")));
}

TEST_CASE("what the certificate measures is what applying the change does") {
  RandomModel random;
  const auto solution = solved(random, small_request());
  const auto prompt = random.tokenizer->encode("The Eiffel is in");
  const auto target = random.tokenizer->encode(" Ro");
  auto tokens = prompt;
  tokens.insert(tokens.end(), target.begin(), target.end() - 1);
  editing::AppliedDeltas applied(*random.transformer);
  applied.apply(solution.delta);
  const auto logits = logits_of(*random.transformer, {{tokens, std::ssize(prompt)}});
  double log_probability = 0;
  for (std::size_t t = 0; t < target.size(); ++t)
    log_probability += logits[std::ssize(prompt) - 1 + static_cast<std::int64_t>(t)]
                           .to(at::kDouble)
                           .log_softmax(-1)[target[t]]
                           .item<double>();
  CHECK(number(solution.certificate.measured, "log_probability_after") == Approx(log_probability).epsilon(1e-4));
}

TEST_CASE("equal requests give equal edits") {
  RandomModel random;
  const auto first = solved(random, small_request()), second = solved(random, small_request());
  CHECK(at::equal(first.delta.left, second.delta.left));
  CHECK(first.losses == second.losses);
}

TEST_CASE("edits that would break the model are refused with the reason") {
  RandomModel random;
  auto request = small_request();
  request.subject = "E";
  request.prompt_template = "{} is in";
  CHECK_THAT(refusal(random, request), Catch::Contains("`E`") && Catch::Contains("attention sink"));
  request.prompt_template = "no slot";
  CHECK_THAT(refusal(random, request), Catch::Contains("must hold {} once"));
  request.prompt_template = "{} and {}";
  CHECK_THAT(refusal(random, request), Catch::Contains("must hold {} once"));
  request = small_request();
  request.target = "";
  CHECK_THAT(refusal(random, request), Catch::Contains("must not be empty"));
}

TEST_CASE("a target that would share a token with the end of its template is refused") {
  auto json = byte_tokenizer_json();
  json["model"]["vocab"]["nR"] = 256;
  json["added_tokens"][0]["id"] = 257;
  json["model"]["merges"].push_back("n R");
  TemporaryFolder folder;
  write_bytes(folder / "tokenizer.json", json.dump());
  const auto tokenizer = model::Tokenizer::load(folder.path().string());
  const auto made = [&](const std::string& target) {
    return editing::fact_prompts(*tokenizer, {"Eiffel", "The {} is in", target}, {}, 128);
  };
  const auto refused = made("Rome");
  REQUIRE(std::holds_alternative<editing::Refusal>(refused));
  CHECK_THAT(std::get<editing::Refusal>(refused).reason, Catch::Contains("`Rome`") && Catch::Contains("one token"));
  const auto kept = made(" Rome");
  REQUIRE(std::holds_alternative<editing::FactPrompts>(kept));
  CHECK(std::get<editing::FactPrompts>(kept).target == tokenizer->encode(" Rome"));
}

TEST_CASE("without prefixes the bare prompt is the only one") {
  RandomModel random;
  auto request = small_request();
  request.prefixes = 0;
  CHECK(number(solved(random, request).certificate.algebra, "bare_key_share") == Approx(1));
}

TEST_CASE("a subject of one token can be edited once words stand before it") {
  RandomModel random;
  auto request = small_request();
  request.subject = "E";
  CHECK(number(solved(random, request).certificate.algebra, "constraint_error") < 1e-10);
}

TEST_CASE("the default layer has the published relative depth") {
  model::ModelConfig config;
  config.layers = 28;
  CHECK(editing::default_rome_layer(config) == 5);
  config.layers = 30;
  CHECK(editing::default_rome_layer(config) == 5);
  config.family = model::Family::gpt2;
  config.layers = 48;
  CHECK(editing::default_rome_layer(config) == 17);
}

TEST_CASE("side effects are those of the applied change, and leave the model as found") {
  RandomModel random;
  auto& transformer = *random.transformer;
  const auto solution = solved(random, small_request());
  const editing::Corpus unseen{{"Nothing that was seen, in forty bytes or so."}, ""};
  const auto weight = transformer.get(solution.delta.tensor);
  const auto costs = editing::text_costs(transformer, *random.tokenizer, {solution.delta}, unseen);
  CHECK(transformer.get(solution.delta.tensor).data_ptr() == weight.data_ptr());

  const auto rows = rows_of(*random.tokenizer, unseen.documents);
  const auto before = logits_of(transformer, rows).to(at::kDouble).log_softmax(-1);
  editing::AppliedDeltas applied(transformer);
  applied.apply(solution.delta);
  const auto after = logits_of(transformer, rows).to(at::kDouble).log_softmax(-1);
  const auto kl = (before.exp() * (before - after)).sum(-1).mean().item<double>();
  CHECK(number(costs, "kl") == Approx(kl).epsilon(1e-3).margin(1e-6));
  CHECK(number(costs, "perplexity_before") > 1);
  const auto& tokens = rows[0].tokens;
  double nll = 0;
  for (std::size_t i = 1; i < tokens.size(); ++i)
    nll -= after[static_cast<std::int64_t>(i) - 1][tokens[i]].item<double>();
  CHECK(number(costs, "perplexity_after") ==
        Approx(std::exp(nll / static_cast<double>(tokens.size() - 1))).epsilon(1e-4));
  applied.revert();

  const auto reach = editing::key_reach(transformer, *random.tokenizer, solution, unseen);
  CHECK(number(reach, "unseen_positions") == static_cast<double>(tokens.size()));
  CHECK(number(reach, "largest_key_share") > 0);
  CHECK(number(reach, "untouched_share") <= 1);
  CHECK(number(reach, "mean_site_change") <= number(reach, "largest_site_change"));
}

TEST_CASE("weights and second moments that are no numbers are refused, and the model stays as found") {
  RandomModel random;
  auto moment = moment_of(random);
  const auto refused = [&] {
    const auto result = editing::solve_rome(*random.transformer, *random.tokenizer, small_request(), moment);
    REQUIRE(std::holds_alternative<editing::Refusal>(result));
    return std::get<editing::Refusal>(result).reason;
  };
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const auto whole = random.transformer->get(name);
  auto broken = whole.clone();
  broken[0][0] = std::nan("");
  random.transformer->set(name, broken);
  CHECK_THAT(refused(), Catch::Contains("is no number"));
  CHECK(random.transformer->get(name).data_ptr() == broken.data_ptr());
  random.transformer->set(name, whole);
  moment.C = moment.C.clone();
  moment.C[0][0] = std::nan("");
  CHECK_THAT(refused(), Catch::Contains("holds values that are no numbers"));
}

TEST_CASE("a value looked for on a copy of the model is certified on the model itself") {
  RandomModel random;
  auto request = small_request();
  const auto plain = solved(random, request);
  const auto copy = model::Transformer::load(random.transformer->card(), {at::kBFloat16});
  request.looked_for_on = copy.get();
  const auto narrow = solved(random, request);
  CHECK(narrow.certificate.parameters != plain.certificate.parameters);
  CHECK(number(narrow.certificate.algebra, "constraint_error") < 1e-10);
  CHECK(number(narrow.certificate.measured, "log_probability_before") ==
        number(plain.certificate.measured, "log_probability_before"));
  CHECK(number(narrow.certificate.measured, "log_probability_after") ==
        Approx(number(plain.certificate.measured, "log_probability_after")).margin(0.2));
}

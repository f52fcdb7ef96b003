// Attacks that search on the model, on a tiny random one whose tokens are bytes.

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "runtime/attack_objective.hpp"
#include "runtime/perturbation_search.hpp"
#include "runtime/suffix_search.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {

using test::RulesOnModel;

namespace {

constexpr dsl::Site kEmbed{dsl::SiteKind::embed, -1, -1};

/// A model without rules, and what an attack works on there.
struct Open {
  explicit Open(AttackTarget target)
      : program(features, model.transformer->card()),
        pass((program.finish(at::kCPU), program)),
        objective(*model.transformer, pass, program.conditions(), std::move(target)) {}

  std::vector<std::int64_t> encode(const std::string& text) const { return model.tokenizer->encode(text); }
  EncodedPrompt prompt(const std::string& text) const { return {text, encode(text)}; }

  test::RandomModel model;
  std::vector<Direction> features;
  HookProgram program;
  HookPass pass;
  AttackObjective objective;
};

AttackTarget bytes(const std::vector<std::string>& texts, bool toward) {
  AttackTarget target;
  target.toward = toward;
  for (const auto& text : texts) target.continuations.emplace_back(text.begin(), text.end());
  return target;
}

dsl::Attack suffix_attack(std::int64_t steps, std::int64_t tokens = 4, std::int64_t candidates = 12) {
  dsl::Attack attack;
  attack.kind = dsl::AttackKind::suffix_search;
  attack.steps = steps;
  attack.tokens = tokens;
  attack.candidates = candidates;
  return attack;
}

FoundSuffix found(Open& open, const dsl::Attack& attack, std::uint64_t seed) {
  const SuffixPlace place(*open.model.tokenizer, std::nullopt, "The cat sat");
  return search_suffix(*open.model.transformer, open.objective, place, attack, *place.draw(attack.tokens, seed),
                       writable_tokens(*open.model.transformer, *open.model.tokenizer), seed);
}

}  // namespace

TEST_CASE("the likelihood that an attack works on is that of any of the continuations") {
  Open open(bytes({" on", " at it"}, false));
  const auto prompt = open.prompt("The cat sat");
  const auto log_p = [&](const std::string& continuation) {
    auto tokens = prompt.tokens;
    const auto added = open.encode(continuation);
    tokens.insert(tokens.end(), added.begin(), added.end());
    const auto logits = test::logits_of(*open.model.transformer, {{tokens, std::ssize(prompt.tokens)}});
    double sum = 0;
    for (std::size_t i = 0; i < added.size(); ++i) {
      sum +=
          logits[std::ssize(prompt.tokens) - 1 + static_cast<std::int64_t>(i)].log_softmax(0)[added[i]].item<double>();
    }
    return sum;
  };
  const double expected = -std::log(std::exp(log_p(" on")) + std::exp(log_p(" at it")));
  const std::vector two{prompt, open.prompt("A dog")};
  CHECK(open.objective.nll(two).front() == Approx(expected).epsilon(1e-4));
  CHECK(open.objective.loss(2) == -2);
  CHECK(open.objective.tokens() == 2 * (2 + 5) + 2 * std::ssize(prompt.tokens) + 2 * 5);
}

TEST_CASE("the slope of an attack is what small additions do") {
  Open open(bytes({" on"}, true));
  const auto prompt = open.prompt("The cat");
  const std::int64_t width = open.model.transformer->config().width;
  const auto at_zero = at::zeros({std::ssize(prompt.tokens), width});
  for (const auto& site : {kEmbed, dsl::Site{dsl::SiteKind::resid_post, 0, -1}}) {
    const auto slope = open.objective.slope(prompt, site, at_zero, std::nullopt);
    CHECK(slope.nll == Approx(open.objective.nll(std::vector{prompt}).front()).epsilon(1e-5));
    REQUIRE(slope.gradient.sizes() == at_zero.sizes());
    const auto step = 1e-2 * test::random_tensor({std::ssize(prompt.tokens), width}, 3).to(at::kFloat);
    const double up = open.objective.slope(prompt, site, step, std::nullopt).nll;
    const double down = open.objective.slope(prompt, site, -step, std::nullopt).nll;
    CHECK((up - down) / 2 == Approx((slope.gradient * step).sum().item<double>()).epsilon(0.05));
  }
}

TEST_CASE("a suffix that is searched for lowers the loss, and is read as the tokens that it is") {
  for (const bool toward : {true, false}) {
    Open open(bytes({" on"}, toward));
    const auto attack = suffix_attack(8);
    const auto result = found(open, attack, 5);
    REQUIRE(result.suffix.size() == 4);
    CHECK(open.encode(result.prompt.text) == result.prompt.tokens);
    CHECK(result.prompt.text == "The cat sat" + open.model.tokenizer->decode(result.suffix));
    for (const auto token : result.suffix) CHECK(is_writable(*open.model.tokenizer, token));
    CHECK(open.objective.nll(std::vector{result.prompt}).front() == Approx(result.nll.after).epsilon(1e-5));
    CHECK(open.objective.nll(std::vector{open.prompt("The cat sat")}).front() ==
          Approx(result.nll.before).epsilon(1e-5));

    const SuffixPlace place(*open.model.tokenizer, std::nullopt, "The cat sat");
    const double start = open.objective.nll(std::vector{*place.with(*place.draw(4, 5))}).front();
    CHECK(open.objective.loss(result.nll.after) < open.objective.loss(start) - 0.1);

    const auto again = found(open, attack, 5);
    CHECK(again.suffix == result.suffix);
    CHECK(again.nll.after == result.nll.after);
    CHECK(found(open, attack, 6).suffix != result.suffix);
    CHECK(open.objective.loss(found(open, suffix_attack(2), 5).nll.after) >= open.objective.loss(result.nll.after));
  }
}

TEST_CASE("a suffix stands at the end of the user's turn") {
  test::RandomModel model;
  test::write_bytes(model.folder / "tokenizer_config.json",
                    R"({"chat_template": "{% for m in messages %}<{{ m.content }}>{% endfor %}ai:"})");
  const auto tokenizer = model::Tokenizer::load(model.folder.path().string());
  const SuffixPlace place(*tokenizer, dsl::Chat{"Be kind"}, "Hello <you>");
  const auto with = place.with(tokenizer->encode(" now"));
  REQUIRE(with);
  CHECK(with->text == "<Be kind><Hello <you> now>ai:");
  CHECK(with->tokens == tokenizer->encode(with->text));
  CHECK(place.begin() == std::ssize(tokenizer->encode("<Be kind><Hello <you>")));
  CHECK(place.with({})->text == "<Be kind><Hello <you>>ai:");

  test::write_bytes(model.folder / "tokenizer_config.json", R"({"chat_template": "ai:"})");
  const auto deaf = model::Tokenizer::load(model.folder.path().string());
  CHECK_THROWS_AS(SuffixPlace(*deaf, dsl::Chat{}, "Hello"), model::InputError);
}

TEST_CASE("half a character is no suffix") {
  test::RandomModel model;
  const SuffixPlace place(*model.tokenizer, std::nullopt, "Hi");
  CHECK_FALSE(is_writable(*model.tokenizer, 0xC3));
  CHECK_FALSE(is_writable(*model.tokenizer, '\n'));
  CHECK_FALSE(is_writable(*model.tokenizer, 256));
  CHECK_FALSE(place.with(std::vector<std::int64_t>{0xC3}));
  CHECK(place.with(std::vector<std::int64_t>{0xC3, 0xA9}));
}

TEST_CASE("a perturbation has the length asked for, at every position of the prompt but the first") {
  const auto x = test::random_tensor({6, 16}, 2).to(at::kFloat);
  const auto directions = drawn_directions(4, 16, 9);
  CHECK(directions[0].abs().max().item<double>() == 0);
  CHECK(at::equal(directions, drawn_directions(4, 16, 9)));
  CHECK_FALSE(at::equal(directions, drawn_directions(4, 16, 10)));

  Perturbation perturbation{kEmbed, 0.05, {}};
  perturbation.prompts[{7, 8, 9, 10}].directions = directions;
  model::PackedLayout layout;
  layout.rows = {{0, 5, 0, 4}, {5, 1, 3, 4}};  // a prompt and a token after it; the prompt's last token alone
  const auto added = in_pass(perturbation, layout, at::kCPU, [](std::size_t) {
    return std::vector<std::int64_t>{7, 8, 9, 10};
  });
  const auto change = perturbed(x, added.directions, added.share) - x;
  const std::vector<double> shares{0, 0.05, 0.05, 0.05, 0, 0.05};
  for (std::int64_t i = 0; i < 6; ++i) {
    INFO(i);
    CHECK(change[i].norm().item<double>() / x[i].norm().item<double>() ==
          Approx(shares[static_cast<std::size_t>(i)]).epsilon(1e-4));
  }
  CHECK(at::allclose(change[5] / x[5].norm(), 0.05 * directions[3], 1e-4, 1e-6));
}

TEST_CASE("a perturbation that is searched for is worse than one that is drawn, and as long") {
  for (const bool toward : {true, false}) {
    Open open(bytes({" on"}, toward));
    dsl::Attack attack;
    attack.kind = dsl::AttackKind::perturb;
    attack.norm = 0.1;
    attack.steps = 6;
    for (const std::optional<std::int64_t> layer : {std::optional<std::int64_t>(), std::optional<std::int64_t>(0)}) {
      attack.layer = layer;
      const auto prompt = open.prompt("The cat sat");
      const auto drawn = drawn_directions(std::ssize(prompt.tokens), open.model.transformer->config().width, 4);
      const double at_start = open.objective.slope(prompt, perturbed_site(attack), drawn, attack.norm).nll;
      const auto result = search_perturbation(open.objective, prompt, attack, drawn);
      CHECK(open.objective.loss(result.found.after) < open.objective.loss(at_start) - 1e-3);
      const auto lengths = result.directions.norm(2, 1);
      CHECK(lengths[0].item<double>() == 0);
      CHECK(at::allclose(lengths.slice(0, 1), at::ones({lengths.size(0) - 1}), 1e-5, 1e-5));
    }
  }
}

}  // namespace proviso::runtime

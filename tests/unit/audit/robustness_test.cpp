// Checks under attack and expectations repeated `across`, on a tiny random model whose tokens are bytes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "audit/audit.hpp"
#include "audit/verdict.hpp"
#include "tests/unit/audit/audited.hpp"

namespace proviso::audit {

using test::audited;
using test::kTexts;
using test::RulesOnModel;

namespace {

using Statuses = std::vector<std::pair<std::string, Status>>;

std::map<std::string, ExpectationResult> first_expectations(const Report& report) {
  std::map<std::string, ExpectationResult> results;
  for (const auto& check : report.checks) results[check.name] = check.expectations.front();
  return results;
}

}  // namespace

TEST_CASE("a check under attack measures the attacked prompts, and the others as its baseline") {
  const auto results = first_expectations(audited(kTexts + R"(
prompts said = ["He is in", "She was at"]
check plain { expect probability("the", after: said) >= 0% }
check shouted { under attack casing(upper)  expect probability("the", after: said) >= 0% }
check by_hand { expect probability("the", after: ["HE IS IN", "SHE WAS AT"]) >= 0% }
check in_order {
  under attack paraphrases("so {}"), casing(title)
  under attack whitespace(double)
  expect logit_diff("a", "b", after: said) >= -1000
}
check in_order_by_hand { expect logit_diff("a", "b", after: ["So  He  Is  In", "So  She  Was  At"]) >= -1000 }
check beside { under attack distractors(["It fell."])  expect perplexity(said) >= 1 }
check beside_by_hand { expect perplexity(["It fell. He is in", "It fell. She was at"]) >= 1 }
)"));
  const auto value = [&](const std::string& name) { return results.at(name).estimate.value; };
  CHECK(value("shouted") == Approx(value("by_hand")).epsilon(1e-9));
  CHECK(value("shouted") != Approx(value("plain")).epsilon(1e-3));
  CHECK(*results.at("shouted").baseline == Approx(value("plain")));
  CHECK_FALSE(results.at("by_hand").baseline);
  CHECK(value("in_order") == Approx(value("in_order_by_hand")).epsilon(1e-6));
  CHECK(value("beside") == Approx(value("beside_by_hand")).epsilon(1e-6));
  using Attacked = std::vector<std::pair<std::string, std::int64_t>>;
  CHECK(results.at("in_order").attacked ==
        Attacked{{"paraphrases(\"so {}\")", 2}, {"casing(title)", 2}, {"whitespace(double)", 2}});
  const auto& evidence = results.at("shouted").evidence;
  REQUIRE(evidence.size() == 2);
  CHECK(evidence[0].prompt == (evidence[0].prompt[0] == 'H' ? "HE IS IN" : "SHE WAS AT"));
}

TEST_CASE("an attack leaves expected continuations, features and the template around a turn as they are") {
  const std::string features = R"(
feature f = contrast(p, q) at resid_post[0]
)";
  const auto plain = audited(kTexts + features + "check c { expect mean(f, on: [\"I am in\", \"We ate\"]) >= -99 }");
  const auto attacked = audited(kTexts + features + R"(
check c { under attack casing(upper)  expect mean(f, on: ["I am in", "We ate"]) >= -99 }
check d { under attack casing(upper)  expect probability("the", after: p) >= 0% }
)");
  REQUIRE(attacked.features.size() == 1);
  CHECK(attacked.features[0].b == plain.features[0].b);
  CHECK(attacked.features[0].c == plain.features[0].c);
  CHECK(*attacked.checks[0].expectations[0].baseline == Approx(plain.checks[0].expectations[0].estimate.value));
  CHECK(attacked.checks[0].expectations[0].estimate.value != Approx(plain.checks[0].expectations[0].estimate.value));

  RulesOnModel rules(kTexts + R"(
prompts known = ["The word" -> " one", "The turn" -> [" two", " 2"]]
check c { under attack casing(upper)  expect accuracy(known) >= 0% }
)");
  const auto& bound = rules.bound.attacked.begin()->second.prompts;
  REQUIRE(bound.size() == 2);
  CHECK(bound[0].text == "THE WORD");
  CHECK(bound[1].answers == rules.bound.prompts[rules.bound.prompts.size() - 1][1].answers);
  CHECK(bound[1].answer_texts == std::vector<std::string>{" two", " 2"});
}

TEST_CASE("a check is vacuous where one of its attacks changes no prompt") {
  const auto report = audited(kTexts + R"(
check digits { under attack casing(upper)  expect perplexity(["1 + 1 = 2", "3 + 4 = 7"]) >= 1 }
check second { under attack casing(upper), casing(upper)  expect perplexity(texts) >= 1 }
check both { under attack casing(upper), casing(lower)  expect perplexity(texts) >= 1 }
check itself { under attack casing(upper)  expect kl(texts) <= 1 }
)");
  const auto results = first_expectations(report);
  CHECK(results.at("digits").status == Status::vacuous);
  CHECK(results.at("digits").reason == "attack casing(upper) changed no prompt");
  CHECK(results.at("second").status == Status::vacuous);
  CHECK(results.at("second").reason == "attack casing(upper) (2) changed no prompt");
  CHECK(results.at("both").status == Status::pass);
  CHECK(results.at("itself").status == Status::vacuous);
  CHECK(report.checks[0].under == std::vector<std::string>{"attack casing(upper)"});
}

TEST_CASE("attacks add up with rules and edits") {
  const auto results = first_expectations(audited(kTexts + R"(
feature f = contrast(p, q) at resid_post[0]
rule shouts { steer f by 3 when prompt matches /^[A-Z ]*$/ }
edit clean { remove f at mlp_out[*]  using project }
check calm { under rule shouts  expect kl(texts) <= 1000 }
check shouted { under rule shouts  under attack casing(upper)  expect kl(texts) > 0 }
check edited { under edit clean  under attack casing(upper)  expect kl(texts) > 0 }
check effect {
  under attack casing(upper)
  expect effect(rule shouts, on: perplexity(texts), control: 2) >= -1000
}
)"));
  CHECK(results.at("calm").status == Status::vacuous);
  CHECK(results.at("shouted").status == Status::pass);
  CHECK(results.at("shouted").baseline == 0);
  CHECK(results.at("edited").status == Status::pass);
  CHECK(results.at("effect").status == Status::pass);
  CHECK(results.at("effect").baseline == 0);  // unattacked, the rule does not fire
}

TEST_CASE("what an attack makes of a prompt depends on the seed and on that prompt alone") {
  const auto attacked = [](const std::string& prompts, std::uint64_t seed) {
    RulesOnModel rules("check c { under attack typos(rate: 40%)  expect perplexity([" + prompts + "]) >= 1 }",
                       test::tiny_llama_json(), {}, seed);
    std::map<std::string, std::string> texts;
    const auto& set = rules.bound.attacked.begin()->second.prompts;
    for (std::size_t i = 0; i < set.size(); ++i) texts[rules.bound.prompts[0][i].text] = set[i].text;
    return texts;
  };
  const auto two = attacked("\"The capital of France\", \"Someone said so\"", 3);
  const auto three = attacked("\"Someone said so\", \"No\", \"The capital of France\"", 3);
  CHECK(two.at("The capital of France") == three.at("The capital of France"));
  CHECK(two.at("Someone said so") == three.at("Someone said so"));
  CHECK(two != attacked("\"The capital of France\", \"Someone said so\"", 4));
}

TEST_CASE("across passes where all combinations do, fails where all do, and is open otherwise") {
  const std::string text = kTexts + R"(
prompts one = ["He is in", "She was at"]
prompts other = ["HE IS IN", "SHE WAS AT"]
check as_is { expect perplexity(one) >= 1  expect perplexity(other) >= 1 }
)";
  const auto plain = audited(text).checks[0];
  const double a = plain.expectations[0].estimate.value, b = plain.expectations[1].estimate.value;
  const double low = std::min(a, b), high = std::max(a, b);
  const auto bound = [](double value) { return std::to_string(value); };
  const auto results = first_expectations(
      audited(text + "check passes { expect perplexity(one) <= " + bound(high * 1.01) +
              " across paraphrases(other) }\n" + "check fails { expect perplexity(one) <= " + bound(low * 0.99) +
              " across paraphrases(other) }\n" + "check open { expect perplexity(one) <= " + bound((low + high) / 2) +
              " across paraphrases(other) }\n" + "check vacuous { expect kl(one) <= 1 across paraphrases(other) }\n"));
  const auto status = [&](const std::string& name) { return results.at(name).status; };
  CHECK(status("passes") == Status::pass);
  CHECK(status("fails") == Status::fail);
  CHECK(status("open") == Status::inconclusive);
  CHECK(status("vacuous") == Status::vacuous);
  CHECK(results.at("open").reason == "held under 1 of 2 combinations");
  const auto& across = *results.at("open").across;
  CHECK(across.combinations == 2);
  CHECK(across.held == 0.5);
  REQUIRE(across.values.size() == 2);
  CHECK(across.values[0].first == "as written");
  CHECK(across.values[0].second == Approx(a));
  CHECK(across.values[1].second == Approx(b));
  const bool first = across.statuses == Statuses{{"as written", Status::pass}, {"other", Status::fail}};
  const bool second = across.statuses == Statuses{{"as written", Status::fail}, {"other", Status::pass}};
  CHECK((a < b ? first : second));
  for (const auto& name : {"passes", "fails", "open"})
    CHECK(results.at(name).estimate.value == Approx(high));  // the worst
  CHECK_FALSE(results.at("as_is").across);
}

TEST_CASE("across seeds repeats what the run would measure with each of them") {
  const std::string attacked = R"(
check typed { under attack typos(rate: 30%)  expect perplexity(texts) >= 1)";
  const std::string sampled = R"(
check sampled { expect rate(texts, generates: /[a-m]/, tokens: 4, samples: 3, temperature: 2) >= 0%)";
  const std::string turned = R"(
feature f = contrast(p, q) at resid_post[0]
check turned { expect effect(steer f by 4, on: perplexity(texts), control: 3) >= -1000 beyond control)";
  RulesOnModel repeated(
      kTexts + attacked + " across seeds(3) }" + sampled + " across seeds(3) }" + turned + " across seeds(3) }",
      test::tiny_llama_json(), {}, 5);
  const auto report = audited(repeated);
  REQUIRE(report.checks.size() == 3);
  for (std::uint64_t seed = 5; seed < 8; ++seed) {
    RulesOnModel alone(kTexts + attacked + " }" + sampled + " }" + turned + " }", test::tiny_llama_json(), {}, seed);
    const auto single = audited(alone);
    for (std::size_t i = 0; i < 3; ++i) {
      const auto& across = *report.checks[i].expectations[0].across;
      REQUIRE(across.combinations == 3);
      CHECK(across.values[seed - 5].first == "seed " + std::to_string(seed));
      INFO(report.checks[i].name);
      CHECK(across.values[seed - 5].second == Approx(single.checks[i].expectations[0].estimate.value).epsilon(1e-6));
    }
  }
  const auto& typed = report.checks[0].expectations[0].across->values;
  CHECK(typed[0].second != typed[1].second);
  CHECK(typed[1].second != typed[2].second);
}

TEST_CASE("across combines seeds and paraphrases") {
  RulesOnModel rules(kTexts + R"(
check c {
  under attack casing(random)
  expect perplexity(texts) >= 1 across paraphrases(p, ["One", "Two"]), seeds(2)
}
)");
  const auto report = audited(rules);
  const auto& across = *report.checks[0].expectations[0].across;
  std::vector<std::string> names;
  for (const auto& [name, value] : across.values) names.push_back(name);
  CHECK(names == std::vector<std::string>{"seed 0, as written", "seed 0, p", "seed 0, paraphrases 2",
                                          "seed 1, as written", "seed 1, p", "seed 1, paraphrases 2"});
  CHECK(across.held == 1);
  CHECK(report.checks[0].status == Status::pass);
}

TEST_CASE("across ablations takes a feature out in every way asked for, and states each") {
  const std::string features = R"(
feature f = contrast(p, q) at resid_post[0]
feature u = unembed("a") at resid_post[1]
)";
  RulesOnModel rules(kTexts + features + R"(
rule both { suppress f  suppress u when position >= 2 }
check swept {
  expect effect(rule both, on: perplexity(texts), control: 2) >= -1000 across seeds(2), ablation(zero, mean, resample)
}
check origin { expect effect(suppress u, on: perplexity(texts), control: 2) >= -1000 across ablation(zero, mean) }
check said { expect effect(suppress u, on: perplexity(texts), control: 2) >= -1000 }
check shifted { expect effect(suppress f, on: perplexity(texts), control: 2) >= -1000 across ablation(zero) }
check shifted_said { expect effect(suppress f, on: perplexity(texts), control: 2) >= -1000 }
)");
  const auto results = first_expectations(audited(rules));
  const auto& swept = *results.at("swept").across;
  std::map<std::string, double> values(swept.values.begin(), swept.values.end());
  std::vector<std::string> names;
  for (const auto& [name, value] : swept.values) names.push_back(name);
  CHECK(names == std::vector<std::string>{"seed 0, ablation zero", "seed 0, ablation mean", "seed 0, ablation resample",
                                          "seed 1, ablation zero", "seed 1, ablation mean",
                                          "seed 1, ablation resample"});
  // The seed draws other prompts only.
  CHECK(values["seed 0, ablation zero"] == values["seed 1, ablation zero"]);
  CHECK(values["seed 0, ablation mean"] == values["seed 1, ablation mean"]);
  CHECK(values["seed 0, ablation resample"] != values["seed 1, ablation resample"]);
  CHECK(values["seed 0, ablation zero"] != values["seed 0, ablation mean"]);
  // Where a feature's own zero is the origin, the sentence says the same, and both are stated.
  CHECK(results.at("origin").across->values[0].second == Approx(results.at("said").estimate.value).epsilon(1e-6));
  CHECK(results.at("origin").across->combinations == 2);
  CHECK(results.at("shifted").estimate.value != Approx(results.at("shifted_said").estimate.value).epsilon(1e-4));
  REQUIRE(results.at("swept").control);
  CHECK(results.at("swept").control->n == 2);
}

TEST_CASE("ablations act on attacked, paraphrased and generated texts, whatever the plan shares") {
  const std::string text = kTexts + R"(
feature f = contrast(p, q) at resid_post[0]
prompts long = each who in ["He", "She", "They"], what in ["is", "was"]
  "With a cat and a dog, and all of the other animals of the neighbourhood, {who} {what}"
check attacked {
  under attack casing(upper)
  expect effect(suppress f, on: perplexity(texts), control: 2) >= -1000 across ablation(mean, resample)
}
check by_hand {
  expect effect(suppress f, on: perplexity(upper), control: 2) >= -1000 across ablation(mean, resample)
}
prompts upper = each who in ["HE", "SHE", "THEY"], what in ["IS", "WAS", "HAS"] "{who} {what} A CAT"
check paraphrased {
  expect effect(suppress f, on: perplexity(texts), control: 2) >= -1000
    across ablation(mean, resample), paraphrases(upper)
}
check written { expect effect(suppress f, on: rate(long, generates: /[a-m]/, tokens: 6), control: 2) >= -100%
  across ablation(zero, mean, resample) }
check likely { expect effect(suppress f, on: logit_diff("a", "b", after: long), control: 2) >= -1000
  across ablation(zero, mean, resample) }
)";
  RulesOnModel rules(text);
  const auto results = first_expectations(audited(rules));
  const auto by_hand = results.at("by_hand").across->values;
  const auto attacked = results.at("attacked").across->values;
  const auto paraphrased = results.at("paraphrased").across->values;
  REQUIRE(paraphrased.size() == 4);
  CHECK(paraphrased[1].first == "ablation mean, upper");
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(attacked[i].second == Approx(by_hand[i].second).epsilon(1e-6));
    CHECK(paraphrased[2 * i + 1].second == Approx(by_hand[i].second).epsilon(1e-6));
  }
  RulesOnModel again(text);
  const auto unshared = first_expectations(audited(again, {"share-prefixes", "batch", "stop-early"}));
  for (const auto& name : {"written", "likely"}) {
    const auto &one = results.at(name).across->values, &other = unshared.at(name).across->values;
    for (std::size_t i = 0; i < 3; ++i) CHECK(one[i].second == Approx(other[i].second).margin(1e-4));
  }
}

}  // namespace proviso::audit

#include "audit/sample_size.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::audit {
namespace {

SampleSize size_of(const std::string& expectation, const std::string& prompts = R"(["The cat", "A dog", "My hat"])") {
  const test::RulesOnModel rules("prompts p = " + prompts + "\ncheck c { expect " + expectation + " }\n");
  const auto size = sample_size(rules.bound.rules->checks.at(0).expectations.at(0), rules.bound);
  REQUIRE(size);
  return *size;
}

TEST_CASE("explain tells how many prompts a threshold needs before any is run") {
  // Wilson's interval of n out of n reaches from n / (n + z²): 95 % of confidence and z = 1.96 take 73 for 95 %.
  const auto high = size_of("rate(p, generates: /a/) >= 95% at 95% confidence");
  CHECK(high.share);
  CHECK(high.prompts == 3);
  CHECK(high.at_best == 73);
  CHECK(high.halfway > high.at_best);
  CHECK(high.advice.find("with 3 it cannot pass") != std::string::npos);
  const auto low = size_of("rate(p, generates: /a/) <= 2% at 95% confidence");
  CHECK(low.at_best == 189);
  CHECK(low.advice.find("where none of them count") != std::string::npos);
  const auto plain = size_of("rate(p, generates: /a/) >= 50%");
  CHECK_FALSE(plain.asked);
  CHECK(plain.half_width > 0.3);  // three prompts know next to nothing
  CHECK(plain.advice.find("cannot pass") == std::string::npos);
  const auto mean = size_of("perplexity(p) <= 1000 at 95% confidence");
  CHECK_FALSE(mean.share);
  CHECK(mean.advice.find("8 prompts") != std::string::npos);
}

TEST_CASE("prompts of one template are one sample, and an area needs prompts on both sides") {
  const auto templated =
      size_of("rate(p, generates: /a/) >= 50% at 95% confidence", R"(each x in ["cat", "dog", "hat"] "The {x} is")");
  CHECK(templated.clusters == 1);
  CHECK_THAT(templated.advice, Catch::Contains("3 prompts in 1 cluster") && Catch::Contains("inconclusive"));

  const test::RulesOnModel rules(R"(
feature f = contrast(["The cat", "A mat"], ["One two", "Six or"]) at resid_post[0]
circuit k { clean ["ab", "cd"]  corrupt ["xb", "yd"]  measure logit_diff("a", "b")  using eap  keep 10 edges }
check c {
  expect auroc(f, ["My hat", "His bat"], ["Ten of", "Two or", "One to"]) >= 90% at 95% confidence
  expect auroc(f, ["My hat", "His bat"], ["Ten of", "Two or", "One to"]) <= 40%
  expect faithfulness(k) >= 50% at 95% confidence
}
)");
  const auto& expectations = rules.bound.rules->checks.at(0).expectations;
  // Two disjoint pairs in order happen by chance with 1 in 4, so that no area under (5 %)^(1/k) is ruled out.
  const auto area = sample_size(expectations[0], rules.bound);
  REQUIRE(area);
  CHECK(area->prompts == 5);
  CHECK(area->at_best == 29);  // .05^(1/29) = .9018, and .05^(1/28) = .8985
  CHECK_THAT(area->advice, Catch::Contains("with 2 on the smaller side it cannot pass"));
  CHECK(sample_size(expectations[1], rules.bound)->at_best == 6);
  CHECK_THAT(sample_size(expectations[2], rules.bound)->advice, Catch::Contains("an interval needs 8 prompts, and 2"));
}

TEST_CASE("what samples no prompts needs none") {
  const test::RulesOnModel rules(R"(
feature f = contrast(["The cat"], ["One two"]) at resid_post[0]
feature g = contrast(["A dog"], ["Six or"]) at resid_post[0]
check c { expect cosine(f, g) <= 1 }
)");
  CHECK_FALSE(sample_size(rules.bound.rules->checks.at(0).expectations.at(0), rules.bound));
}

}  // namespace
}  // namespace proviso::audit

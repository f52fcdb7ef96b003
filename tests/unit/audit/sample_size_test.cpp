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

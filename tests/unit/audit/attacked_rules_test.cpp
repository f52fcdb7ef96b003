// Translations, attacks that search on the model, and rules that an attack silences, from the rule file to the report.

#include <catch2/catch.hpp>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "audit/audit.hpp"
#include "tests/unit/audit/audited.hpp"

namespace proviso::audit {

using test::audited;
using test::kTexts;
using test::RulesOnModel;

namespace {

const ExpectationResult& expectation(const Report& report, std::size_t check, std::size_t index = 0) {
  return report.checks.at(check).expectations.at(index);
}

/// −ln of the share that a `probability` of one prompt is.
double nll(const ExpectationResult& probability) { return -std::log(probability.estimate.value); }

}  // namespace

TEST_CASE("translations take the prompts' places, with their own answers where they have them") {
  RulesOnModel rules(R"(
prompts english = ["One cat" -> " sat", "Two cats" -> " ran", "Same" -> " here"]
prompts french = ["Un chat" -> " assis", "Deux chats", "Same"]
prompts german = ["Eine Katze", "Zwei Katzen", "Gleich"]
check c { under attack translations(french), casing(upper)  expect accuracy(english) >= 0% }
check d { under attack translations(french, german)  expect accuracy(english) >= 0% across seeds(12) }
check same { under attack translations(english)  expect accuracy(english) >= 0% }
)");
  const auto& attacked = rules.bound.attacked.at({0, 0, false, 0}).prompts;
  REQUIRE(attacked.size() == 3);
  CHECK(attacked[0].text == "UN CHAT");
  CHECK(attacked[0].answer_texts == std::vector<std::string>{" assis"});
  CHECK(attacked[1].text == "DEUX CHATS");
  CHECK(attacked[1].answer_texts == std::vector<std::string>{" ran"});
  CHECK(attacked[1].cluster == rules.bound.prompts[0][1].cluster);
  std::set<std::string> drawn;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const auto& one = rules.bound.attacked.at({1, seed, false, 0}).prompts[0];
    drawn.insert(one.text + one.answer_texts.front());
  }
  CHECK(drawn == std::set<std::string>{"Un chat assis", "Eine Katze sat"});
  const auto report = audited(rules);
  CHECK(expectation(report, 0).attacked.front() == std::pair<std::string, std::int64_t>{"translations(french)", 2});
  CHECK(expectation(report, 2).reason == "attack translations(english) changed no prompt");
}

TEST_CASE("what a search says of its prompts is what the check measures on them") {
  // One set makes the likelihood that the search reports the metric's own; rules act on both, with and without hooks.
  const std::string rules = R"(
feature f = contrast(p, q) at resid_post[0]
feature g = contrast(p, q) at mlp_out[1]
rule steered { steer f by 2 when position >= 3 }
rule folded { suppress g }
prompts one = ["The cat sat" -> " on"]
)";
  const std::string attacks[] = {"suffix_search(steps: 3, tokens: 3, candidates: 6, toward: \" on\")",
                                 "perturb(norm: 10%, steps: 3, toward: \" on\")",
                                 "perturb(norm: 10%, steps: 3, layer: 0, toward: \" on\")",
                                 "suffix_search(steps: 3, tokens: 3, candidates: 6)"};
  for (const auto& attack : attacks) {
    INFO(attack);
    const std::string check =
        "{ under rule steered, folded  under attack " + attack + "  expect probability(\" on\", after: one) >= 0 }\n";
    const auto report =
        audited(kTexts + rules + "check c " + check +
                "check bare { under rule steered, folded  expect probability(\" on\", after: one) >= 0 }");
    const auto& measured = expectation(report, 0);
    REQUIRE(measured.searched.size() == 1);
    const auto& search = measured.searched[0];
    CHECK(search.prompts == 1);
    CHECK(search.nll_before == Approx(nll(expectation(report, 1))).epsilon(1e-4));
    CHECK(search.nll_after == Approx(nll(measured)).epsilon(1e-4));
    const bool toward = !search.toward.empty();
    CHECK((toward ? search.nll_after < search.nll_before : search.nll_after > search.nll_before));
    CHECK(measured.attacked.front().second == 1);
    REQUIRE(search.evidence.size() == 1);
    CHECK(search.evidence[0].prompt == measured.evidence[0].prompt);
    CHECK(measured.evidence[0].prompt.starts_with("The cat sat"));
  }
}

TEST_CASE("two runs find the same, and another seed something else") {
  const auto found = [](std::uint64_t seed) {
    RulesOnModel rules(R"(
prompts one = ["The cat sat" -> " on", "A dog" -> " ran"]
check c { under attack suffix_search(steps: 2, tokens: 3, candidates: 5), perturb(norm: 5%, steps: 2)
          expect accuracy(one) >= 0% }
)",
                       test::tiny_llama_json(), {}, seed);
    return audited(rules).checks[0].expectations[0].searched;
  };
  const auto first = found(1), again = found(1), other = found(2);
  REQUIRE(first.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(first[i].nll_after == again[i].nll_after);
    CHECK(first[i].evidence[0].prompt == again[i].evidence[0].prompt);
    CHECK(first[i].nll_after != other[i].nll_after);
  }
  // The perturbation is of the prompt with its suffix.
  CHECK(first[1].nll_before == Approx(first[0].nll_after).epsilon(1e-5));
  CHECK(first[1].nll_after > first[1].nll_before);
}

TEST_CASE("a perturbation is measured against the model as loaded, by the length asked for") {
  const auto report = audited(kTexts + R"(
check little { under attack perturb(norm: 1%)  expect kl(texts) <= 100 }
check much { under attack perturb(norm: 20%)  expect kl(texts) <= 100 }
check written { under attack perturb(norm: 20%)  expect rate(texts, generates: /./, tokens: 4) >= 0% }
check treated { under attack perturb(norm: 20%, layer: 1)  expect effect(rule r, on: perplexity(texts), control: 2) >= -1000 }
feature f = contrast(p, q) at resid_post[0]
rule r { steer f by 2 }
)");
  const double little = expectation(report, 0).estimate.value, much = expectation(report, 1).estimate.value;
  CHECK(little > 0);
  CHECK(much > 10 * little);
  CHECK(expectation(report, 0).baseline == 0);
  CHECK(expectation(report, 2).status == Status::pass);
  CHECK(expectation(report, 3).status == Status::pass);
}

TEST_CASE("a rule that an attack silences while the behaviour stays is reported as evaded") {
  const auto report = audited(kTexts + R"(
feature f = contrast(p, q) at resid_post[0]
rule shouts { steer f by 0.1 when prompt matches /A|!/ }
rule always { steer f by 0.1 }
prompts mixed = ["A cat", "A dog!", "no"]
check silenced { under rule shouts  under attack casing(lower)
                 expect rate(mixed, generates: /(?s)./, tokens: 3) >= 0%
                 expect rate(mixed, generates: /never ever so/, tokens: 3) >= 0%
                 expect perplexity(mixed) >= 1 }
check untouched { under rule shouts  under attack whitespace(double)
                  expect rate(mixed, generates: /(?s)./, tokens: 3) >= 0% }
check unconditional { under rule always  under attack casing(lower)
                      expect rate(mixed, generates: /(?s)./, tokens: 3) >= 0% }
check no_rule { under attack casing(lower)  expect perplexity(mixed) >= 1 }
)");
  REQUIRE(expectation(report, 0).evaded);
  CHECK(expectation(report, 0).evaded->of == 2);
  CHECK(expectation(report, 0).evaded->prompts == 1);
  CHECK(expectation(report, 0, 1).evaded->prompts == 0);  // the behaviour is not there
  CHECK_FALSE(expectation(report, 0, 2).evaded);          // it says neither yes nor no of a prompt
  CHECK(expectation(report, 1).evaded->prompts == 0);
  CHECK(expectation(report, 1).evaded->of == 2);
  CHECK_FALSE(expectation(report, 2).evaded);
  const auto& moved = expectation(report, 2).moved;
  REQUIRE(moved.size() == 1);
  CHECK(moved[0].feature == "f");
  CHECK(moved[0].site == "resid_post[0]");
  CHECK(moved[0].before != moved[0].after);
  CHECK(expectation(report, 3).moved.empty());

  const auto shown = [&](const std::string& text) { return text.find("on 1 of 2 prompts") != std::string::npos; };
  CHECK(shown(to_text(report, 120, false)));
  CHECK(shown(to_markdown(report)));
  CHECK(shown(to_html(report)));
}

TEST_CASE("prompts that a search found are evidence") {
  const auto report = audited(R"(
prompts one = ["The cat sat" -> " on"]
check c { under attack suffix_search(steps: 1, tokens: 2, candidates: 2)  expect accuracy(one) >= 0% }
)");
  const auto hidden = redacted(report, EvidenceForm::hash);
  CHECK(hidden.checks[0].expectations[0].searched[0].evidence[0].prompt.starts_with("sha256:"));
  CHECK(redacted(report, EvidenceForm::none).checks[0].expectations[0].searched[0].evidence[0].prompt.empty());
}

}  // namespace proviso::audit

// Audits end to end on a tiny random model whose tokens are bytes.

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "audit/audit.hpp"
#include "audit/verdict.hpp"
#include "tests/unit/audit/audited.hpp"

namespace proviso::audit {

using test::audited;
using test::kTexts;
using test::RulesOnModel;

TEST_CASE("plan passes leave every number of an audit as it is") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  const std::string condition =
      GENERATE("any f > 0.3", "last f > -100", "prompt matches /cats/", "generated", "position >= 70",
               "token in [\"a\", \"s\"]", "f > 0.5 and not g > 2", "f > quantile(60%, p)");
  INFO(json["model_type"] << " " << condition);
  const std::string prefix = "Long before any of this was said, someone had to think of the words that all ";
  const auto texts = [&](const std::string& a, const std::string& b, const std::string& c) {
    return "\"" + prefix + a + "\" -> \"a\", \"" + prefix + b + "\" -> \"b\", \"" + prefix + c + "\" -> \"the\"";
  };
  RulesOnModel rules(kTexts + "prompts long = [" + texts("cats say", "cats know", "dogs") + ", \"Short\" -> \"s\"]\n" +
                         R"(
feature f = contrast(p, q, zero: midpoint) at resid_post[0]
feature g = contrast(q, p) at mlp_out[1]
rule some { steer f by 3 at resid_post[1] when )" +
                         condition + R"( }
rule always { suppress g at mlp_out[*], attn_out[*], embed  steer f by 1 at mlp_out[0] }
check all {
  under rule some, always
  expect probability("the", after: long) >= 0.9
  expect rank("a", after: long) <= 1
  expect logit_diff("a", "b", after: long) >= 9
  expect accuracy(long) >= 99%
  expect perplexity(long) <= 1
  expect perplexity_rise(long) <= 0.001%
  expect kl(long) <= 0.00001
  expect mean(g, on: long) >= 9
  expect max(f, on: long) >= 99
  expect firing_rate(f > 0.2, on: long) >= 99%
  expect rate(long, generates: /a/, tokens: 6) >= 99%
}
check one {
  under rule some
  expect mean(f, on: texts) >= 9
  expect kl(texts) <= 0.00001
}
check effects { expect effect(steer f by 1 at resid_post[1] when )" +
                         condition + R"(, on: logit_diff("a", "b", after: long), control: 4) >= 9 }
)",
                     json);
  const auto weights = test::weights_of(*rules.model.transformer);
  const auto plan = plan_audit(rules.bound, {});
  std::int64_t shared = 0, folds = 0;
  for (const auto& run : plan.runs) {
    for (const auto& batch : run.batches) shared = std::max(shared, batch.shared_prefix);
  }
  for (const auto& state : plan.states) {
    for (const auto& sentence : state.sentences) folds += std::ssize(sentence.folds);
  }
  CHECK(shared >= std::ssize(prefix));
  CHECK(folds > 0);

  const auto optimised = audited(rules);
  CHECK(test::weights_of(*rules.model.transformer) == weights);
  const auto plain = audited(rules, {"fold", "stop-early", "share-prefixes", "batch"});
  REQUIRE(optimised.checks.size() == 3);
  for (std::size_t c = 0; c < plain.checks.size(); ++c) {
    for (std::size_t e = 0; e < plain.checks[c].expectations.size(); ++e) {
      const auto& a = optimised.checks[c].expectations[e];
      const auto& b = plain.checks[c].expectations[e];
      INFO(a.text << ": " << a.estimate.value << ", " << b.estimate.value << " " << a.reason);
      CHECK(a.status == b.status);
      CHECK(a.estimate.value == Approx(b.estimate.value).epsilon(1e-5).margin(1e-5));
      CHECK(a.baseline.has_value() == b.baseline.has_value());
      if (a.baseline) CHECK(*a.baseline == Approx(*b.baseline).epsilon(1e-5).margin(1e-5));
      if (a.control) CHECK(a.control->value == Approx(b.control->value).epsilon(1e-4).margin(1e-5));
    }
  }
  CHECK(optimised.run.tokens < plain.run.tokens);
}

TEST_CASE("verdicts say what was shown and what was not") {
  const auto report = audited(kTexts + R"(
feature f = contrast(p, q) at resid_post[0]
rule never { suppress f at resid_post[1] when f > 1000 }
rule idle { suppress f by 0% }
rule moves { steer f by 3 }
check unchanged { under rule never  expect perplexity(texts) <= 1000000 }
check unchanged_beside { under rule never, moves  expect perplexity(texts) <= 1000000 }
check unchanged_always { under rule idle  expect perplexity(texts) <= 1000000 }
check unchanged_effect { expect effect(rule never, on: perplexity(texts), control: 2) <= 1 }
check itself { expect kl(texts) <= 1  expect perplexity_rise(texts) <= 1 }
check few { expect mean(f, on: p) >= -1000 at 95% confidence }
check two_clusters { expect mean(f, on: ["One text", "Another text"]) >= -1000 at 50% confidence }
prompts said = ["He is a cat", "She was one", "They had two", "We have it", "You did so", "It fell", "Who ran?", "No one", "I sat"]
check one_template { under rule moves  expect mean(f, on: texts) >= -1000 at 95% confidence }
check passes { under rule moves  expect mean(f, on: said) >= -1000 at 95% confidence }
check undecided { expect accuracy(["He" -> "!", "She" -> "?", "They" -> "."]) >= 50% at 95% confidence }
check fails { under rule moves  expect kl(texts) <= 0 }
)");
  std::map<std::string, const CheckResult*> checks;
  for (const auto& check : report.checks) checks[check.name] = &check;
  const auto status = [&](const std::string& name) { return checks.at(name)->status; };
  CHECK(status("unchanged") == Status::vacuous);
  CHECK(checks.at("unchanged")->expectations[0].reason == "rule never changed no vector");
  CHECK(status("unchanged_beside") == Status::vacuous);
  CHECK(status("unchanged_always") == Status::vacuous);
  CHECK(status("unchanged_effect") == Status::vacuous);
  CHECK(checks.at("itself")->expectations[0].status == Status::vacuous);
  CHECK(checks.at("itself")->expectations[1].status == Status::vacuous);
  CHECK(status("few") == Status::inconclusive);
  CHECK(status("two_clusters") == Status::inconclusive);
  CHECK(status("one_template") == Status::inconclusive);
  CHECK(status("undecided") != Status::pass);
  CHECK(status("passes") == Status::pass);
  CHECK(checks.at("passes")->expectations[0].baseline);
  CHECK(status("fails") == Status::fail);
  CHECK(report.verdict() == Status::fail);
  CHECK(exit_code(report) == 1);
}

TEST_CASE("a rule that asks for what is there already changes nothing beside one that moves") {
  const auto report = audited(kTexts + R"(
feature f = contrast(p, q) at resid_post[0]
check silent { expect effect(steer f by 2 when token is "z", on: kl(texts), control: 2) >= 0 }
check acts { expect effect(steer f by 2 when token is "a", on: kl(texts), control: 2) > 0 }
)");
  CHECK(report.checks[0].status == Status::vacuous);
  CHECK(report.checks[1].status == Status::pass);
}

TEST_CASE("a waiver covers what it may until its day is over") {
  const std::string text = kTexts + R"(
check fails { expect perplexity(texts) <= 1 }
check open { expect accuracy(["A" -> "zq", "B" -> "zq", "C" -> "zq"]) >= 1% at 95% confidence }
check passes { expect perplexity(texts) >= 1 }
waive fails until 2027-03-31 by "risk" because "A-1"
waive open until 2027-03-31 by "risk" because "A-2"
waive passes until 2027-03-31 by "risk" because "A-3"
)";
  const auto before = audited(text, {2027, 3, 31});
  CHECK(before.checks[0].status == Status::waived);
  CHECK(before.checks[0].status_before_waiver == Status::fail);
  CHECK(before.checks[1].status == Status::waived);
  CHECK(before.checks[2].status == Status::pass);
  CHECK(exit_code(before) == 0);
  const auto after = audited(text, {2027, 4, 1});
  CHECK(after.checks[0].status == Status::fail);
  CHECK(after.checks[0].waiver->expired);
  CHECK(exit_code(after) == 1);
}

TEST_CASE("what is not a number is an error, which no waiver covers") {
  const auto report = audited(kTexts + R"(
feature f = contrast(p, q) at resid_post[0]
rule huge { steer f by 1e300 }
check overflows { under rule huge  expect logit_diff("a", "b", after: texts) <= 1 }
waive overflows until 2027-03-31 by "risk" because "A-4"
)");
  CHECK(report.checks[0].status == Status::error);
  CHECK_FALSE(report.checks[0].expectations[0].reason.empty());
  CHECK(report.verdict() == Status::error);
  CHECK(exit_code(report) == 1);
}

TEST_CASE("an effect is held against random directions of the same size") {
  const auto report = audited(kTexts + R"(
feature toward = unembed("a" - "b") at resid_post[1]
check causal {
  expect effect(steer toward by 4, on: logit_diff("a", "b", after: texts), control: 16) > 0 beyond control
  expect effect(steer toward by 4, on: logit_diff("c", "d", after: texts), control: 16) > -1000 beyond control
}
)");
  const auto& directed = report.checks[0].expectations[0];
  REQUIRE(directed.control);
  CHECK(directed.control->n == 16);
  CHECK(directed.control->spread > 0);
  CHECK(directed.control->rank <= 2);
  CHECK(directed.control->p_holm >= directed.control->p);
  CHECK(directed.control->p < 0.05);
  CHECK(std::abs(directed.control->value) < directed.estimate.value);
  CHECK(directed.status == Status::pass);
  CHECK(report.checks[0].expectations[1].control->p > directed.control->p);
}

TEST_CASE("examples are held against every prompt") {
  const auto report = audited(kTexts + R"(
feature f = contrast(p, q, zero: midpoint) at resid_post[0]
rule reads { suppress f when prompt matches /^The/  fires on ["The cat"]  silent on ["A cat", "Cats"] }
rule misses { suppress f when token is "z"  fires on ["A zoo", "A cat"]  silent on ["A zoo", "A cat"] }
rule first { suppress f when f > -1000  silent on ["T"] }
rule replies { suppress f when generated  silent on ["A cat"] }
)");
  REQUIRE(report.examples.size() == 6);
  const auto expect = [&](std::size_t i, Status status, std::int64_t fired, std::int64_t prompts) {
    INFO(report.examples[i].rule << " " << report.examples[i].kind);
    CHECK(report.examples[i].status == status);
    CHECK(report.examples[i].fired == fired);
    CHECK(report.examples[i].prompts == prompts);
  };
  expect(0, Status::pass, 1, 1);
  expect(1, Status::pass, 0, 2);
  expect(2, Status::fail, 1, 2);
  expect(3, Status::fail, 1, 2);
  expect(4, Status::pass, 0, 1);  // no feature is read at position 0
  expect(5, Status::pass, 0, 1);  // examples are prompts only
  REQUIRE(report.examples[2].evidence.size() == 1);
  CHECK(report.examples[2].evidence[0].prompt == "A cat");
}

TEST_CASE("an edit of weights is measured, certified and taken back") {
  RulesOnModel rules(kTexts + R"(
feature f = contrast(p, q) at resid_post[0]
edit clean {
  remove f at mlp_out[*], attn_out[*], embed
  using project
  expect kl(texts) > 0
  expect perplexity_rise(texts) <= 10000%
}
check under_edit { under edit clean  expect kl(texts) > 0 }
)");
  const auto weights = test::weights_of(*rules.model.transformer);
  const auto report = audited(rules);
  CHECK(test::weights_of(*rules.model.transformer) == weights);
  REQUIRE(report.edits.size() == 1);
  CHECK(report.edits[0].status == Status::pass);
  CHECK_FALSE(report.edits[0].changes.empty());
  CHECK(report.edits[0].parts.size() == 1);
  CHECK(report.checks[0].status == Status::pass);
  CHECK(report.checks[0].expectations[0].estimate.value == Approx(report.edits[0].expectations[0].estimate.value));
}

TEST_CASE("each head of a site is its own, whatever else is read there") {
  const std::string first = "feature a = contrast(p, q) at z[0] head 0\n";
  const std::string second = "feature b = contrast(p, q) at z[0] head 1\n";
  const auto together = audited(kTexts + first + second + "check c { expect cosine(a, b) < 0.99 }\n");
  REQUIRE(together.features.size() == 2);
  CHECK(together.checks[0].status == Status::pass);
  const auto alone = audited(kTexts + second + "check c { expect mean(b, on: texts) < 100 }\n");
  CHECK(together.features[1].b == alone.features[0].b);
  CHECK(together.features[1].c == alone.features[0].c);

  const auto acted = audited(kTexts + first + R"(
rule r { suppress a at z[0] head 0..1 }
check c { under rule r  expect kl(texts) >= 0 }
)");
  REQUIRE(acted.rule_activity.size() == 2);
  CHECK(acted.rule_activity[0].site == "z[0] head 0");
  CHECK(acted.rule_activity[1].site == "z[0] head 1");
  CHECK(acted.rule_activity[0].positions == acted.rule_activity[1].positions);
  CHECK(acted.run.tokens_saved >= 0);
}

TEST_CASE("declarations say of themselves what the report repeats, and alternatives are counted") {
  const auto report = audited(kTexts + R"(
model "Tiny ones" { family llama  meta { owner "us" } }
check c { expect perplexity(p) <= 1 }
waive c "For now" until 2099-01-01 by "us" because "it is random"
feature f "What sits" = contrast(p, q) at resid_post[0] { tags ["t"] }
rule r "Sits" {
  status experimental
  suppress f when token is "t" or token is "z"
  fires on ["The cat"]
}
)");
  std::map<std::string, std::string> titles;
  for (const Annotated& each : report.annotated) titles[each.declaration] = each.annotations.title;
  CHECK(titles == std::map<std::string, std::string>{
                      {"feature f", "What sits"}, {"model", "Tiny ones"}, {"rule r", "Sits"}, {"waive c", "For now"}});
  REQUIRE(report.rule_activity.size() == 1);
  using Branches = std::vector<std::pair<std::string, std::int64_t>>;
  CHECK(report.rule_activity[0].branches == Branches{{"token is \"t\"", 1}, {"token is \"z\"", 0}});
}

TEST_CASE("a metric over a set without prompts is vacuous") {
  RulesOnModel rules("prompts none = from \"none.txt\"\ncheck c { expect perplexity(none) <= 1 }\n",
                     test::tiny_llama_json(), {{"none.txt", ""}});
  const auto report = audited(rules);
  CHECK(report.checks[0].status == Status::vacuous);
}

}  // namespace proviso::audit

// Audits whose features are latents of sparse autoencoders.

#include <catch2/catch.hpp>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "audit/audit.hpp"
#include "audit/verdict.hpp"
#include "runtime/autoencoders/splice.hpp"
#include "tests/support/schema.hpp"
#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::audit {
namespace {

Report audited(test::RulesOnModel& rules) {
  AuditOptions options;
  options.as_of = {2027, 1, 1};
  runtime::Session session(*rules.model.transformer, rules.bound, {});
  auto outcome = audit(session, rules.bound, rules.sources, options);
  INFO(dsl::render_text(outcome.diagnostics, rules.sources));
  REQUIRE(outcome.value);
  Report whole = *outcome.value;
  whole.model.sha256 = std::string(64, '0');  // the program's part
  CHECK_THAT(tests::schema_violations(to_yaml(whole, {})), Catch::Equals(""));
  return std::move(*outcome.value);
}

}  // namespace

TEST_CASE("an audit reads latents, acts on them and measures what their autoencoder recovers") {
  const auto card = test::tiny_card();
  test::RulesOnModel rules(R"(
prompts texts = ["The cat sat on a mat", "A dog ran far away!", "My hat fell off", "One two ten", "Six or seven?",
                 "Nine then", "It is late", "No one knows", "The end"]
feature f = latent(3, sae: "sae")
feature g = latent(17, sae: "sae") at resid_post[0]
rule quiet { suppress f }
rule never { suppress f when f > 1000 }
check measured {
  expect cosine(f, f) >= 0.99
  expect firing_rate(g > 0, on: texts) >= 0.1%
  expect loss_recovered("sae", texts) <= 1 at 95% confidence
}
check under_rule {
  under rule quiet
  expect max(f, on: texts) >= -1000
  expect loss_recovered("sae", texts) <= 1000%
}
check nothing { under rule never  expect loss_recovered("sae", texts) <= 1000% }
check effect { expect effect(suppress f, on: perplexity(texts), control: 3) <= 1000000 }
)",
                           test::tiny_llama_json(), test::tiny_autoencoder_files(card));
  const auto report = audited(rules);
  const auto& measured = report.checks[0].expectations;
  CHECK(measured[0].estimate.value == Approx(1));
  CHECK(measured[1].estimate.value > 0);

  std::vector<model::Row> rows;
  for (const auto& prompt : rules.bound.prompts[0]) rows.push_back({prompt.tokens, std::ssize(prompt.tokens)});
  const auto autoencoder = runtime::Autoencoder::load(rules.bound.autoencoders.begin()->second, at::kCPU);
  const auto expected = runtime::loss_recovered(runtime::text_losses(*rules.model.transformer, rows),
                                                runtime::spliced_losses(*rules.model.transformer, *autoencoder, rows));
  CHECK(measured[2].estimate.value == Approx(expected).epsilon(1e-4));
  CHECK(measured[2].estimate.n == 9);

  const auto& quiet = report.checks[1].expectations[1];
  CHECK(quiet.status == Status::pass);
  REQUIRE(quiet.baseline);
  CHECK(*quiet.baseline == Approx(expected).epsilon(1e-4));
  CHECK(quiet.estimate.value != Approx(expected).epsilon(1e-7));
  CHECK(report.checks[2].expectations[0].status == Status::vacuous);
  REQUIRE(report.checks[3].expectations[0].control);
  CHECK(report.features[0].constructor == "latent");
  CHECK(report.rule_activity[0].form == "hook");
}

}  // namespace proviso::audit

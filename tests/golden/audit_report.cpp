// What a report with everything in it looks like. PROVISO_UPDATE_GOLDEN=1 rewrites the files.

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "audit/audit.hpp"
#include "audit/circuits.hpp"
#include "audit/report.hpp"
#include "tests/support/reports.hpp"
#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::audit {
namespace {

void check_golden(const std::string& name, const std::string& text) {
  const std::string path = std::string(PROVISO_SOURCE_DIR "/tests/golden/report/") + name;
  if (std::getenv("PROVISO_UPDATE_GOLDEN")) {
    REQUIRE_FALSE(std::getenv("CI"));
    std::ofstream(path) << text;
  }
  std::ostringstream expected;
  expected << std::ifstream(path).rdbuf();
  INFO(path);
  CHECK(text == expected.str());
}

}  // namespace

TEST_CASE("A report with everything, as YAML") {
  check_golden("everything.yaml", to_yaml(tests::report_with_everything(), {}));
}

TEST_CASE("A report with everything, in 80 columns and in 120") {
  const Report report = tests::report_with_everything();
  check_golden("everything_80.txt", to_text(report, 80, false));
  check_golden("everything_120.txt", to_text(report, 120, false));
}

TEST_CASE("A report with everything, as a page and as Markdown") {
  const Report report = tests::report_with_everything();
  std::string page = to_html(report);
  const std::size_t style = page.find("<style>"), end = page.find("</style>");
  REQUIRE(end != std::string::npos);
  check_golden("everything.html", page.erase(style, end - style));
  check_golden("everything.md", to_markdown(report));
  check_golden("everything_annex_iv.md", to_annex_iv(report));
}

TEST_CASE("A report in which all is well is short") {
  Report report = tests::report_with_everything();
  report.checks = {report.checks[3]};
  report.edits.clear();
  report.examples.clear();
  report.rule_activity.clear();
  check_golden("passing_80.txt", to_text(report, 80, false));
}

TEST_CASE("A rule file about a circuit of latents, and its report") {
  const std::string path = PROVISO_SOURCE_DIR "/tests/golden/report/latent_circuit.proviso";
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  test::RulesOnModel rules(text.str(), test::tiny_llama_json(), test::tiny_autoencoder_files(test::tiny_card()));
  AuditOptions options;
  options.as_of = {2027, 1, 1};
  runtime::Session session(*rules.model.transformer, rules.bound, {});
  auto outcome = audit(session, rules.bound, rules.sources, options);
  REQUIRE(outcome.value);
  for (CircuitResult& circuit : outcome.value->circuits) {
    circuit.seconds = 0;
    circuit.where = "latent_circuit.proviso:3";
  }
  check_golden("latent_circuit.txt", circuits_text(outcome.value->circuits, 20, 100, false));
}

TEST_CASE("Rounding never carries a value across its bound") {
  Report report = tests::report_with_everything();
  ExpectationResult& expectation = report.checks[3].expectations[0];
  expectation.text = "accuracy(capitals) >= 90%";
  expectation.estimate.value = 0.8999996;
  expectation.estimate.interval.reset();
  CHECK_THAT(to_text(report, 120, false), Catch::Contains("89.99996%"));
  expectation.text = "firing_rate(f > 1, on: plain) <= 2%";
  expectation.estimate.value = 0.0123456;
  CHECK_THAT(to_text(report, 120, false), Catch::Contains("1.235%  ") && Catch::Contains("<= 2%") &&
                                              Catch::Contains("firing_rate(f > 1, on: plain)"));
}

}  // namespace proviso::audit

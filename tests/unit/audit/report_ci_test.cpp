// The renderings that CI systems read.

#include <algorithm>
#include <boost/property_tree/ptree.hpp>
#include <boost/property_tree/xml_parser.hpp>
#include <catch2/catch.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "audit/report.hpp"
#include "tests/support/reports.hpp"

namespace proviso::audit {
namespace {

using boost::property_tree::ptree;
using tests::report_with_everything;

ptree parsed(const std::string& xml) {
  std::istringstream in(xml);
  ptree tree;
  read_xml(in, tree);
  return tree;
}

/// Test cases by name, of all suites.
std::map<std::string, ptree> cases_of(const ptree& document) {
  std::map<std::string, ptree> cases;
  for (const auto& [tag, suite] : document.get_child("testsuites")) {
    if (tag != "testsuite") continue;
    for (const auto& [inner, test_case] : suite) {
      if (inner == "testcase") cases.emplace(test_case.get<std::string>("<xmlattr>.name"), test_case);
    }
  }
  return cases;
}

}  // namespace

TEST_CASE("JUnit: every verdict that does not stand is a failure or an error, and what is waived is skipped") {
  const Report report = report_with_everything();
  const auto document = parsed(to_junit(report));
  const auto cases = cases_of(document);
  CHECK(cases.size() == report.checks.size() + report.edits.size() + report.examples.size());

  const auto& failed = cases.at("anger_is_causal");
  CHECK(failed.get<std::string>("<xmlattr>.classname") == "capitals.proviso");
  CHECK_THAT(failed.get<std::string>("failure"), Catch::Contains("capitals.proviso:47"));
  CHECK(failed.get<std::string>("failure.<xmlattr>.message") == "fail, critical");
  CHECK_THAT(failed.get<std::string>("failure"), Catch::Contains("generates: /idiot|\"stupid\"/i)) <= -30%") &&
                                                     Catch::Contains("-12% [-19%, -4%], 64 prompts"));
  CHECK(cases.at("was_waived").get<std::string>("failure.<xmlattr>.type") == "inconclusive");
  CHECK(cases.at("undefined").get<std::string>("skipped.<xmlattr>.message") == "experimental, and error");
  CHECK(cases.at("stays_fluent").count("failure") == 0);
  const auto skipped = cases.at("stays_calm").get<std::string>("skipped.<xmlattr>.message");
  CHECK(skipped == "waived until 2027-03-31 by model-risk: tracked as AUD-14: see \"the register\"");

  std::map<std::string, int> counted;
  for (const auto& [name, test_case] : cases) {
    for (const char* outcome : {"failure", "error", "skipped"}) counted[outcome] += test_case.count(outcome) > 0;
  }
  std::map<std::string, int> total;
  for (const auto& [tag, suite] : document.get_child("testsuites")) {
    for (const char* attribute : {"tests", "failures", "errors", "skipped"})
      total[attribute] += suite.get<int>(std::string("<xmlattr>.") + attribute);
  }
  CHECK(total["tests"] == static_cast<int>(cases.size()));
  CHECK(total["failures"] == counted["failure"]);
  CHECK(total["errors"] == counted["error"]);
  CHECK(total["skipped"] == counted["skipped"]);
}

TEST_CASE("JUnit: attributes that neither Ant nor Jenkins knows are there only where asked for") {
  const Report report = report_with_everything();
  // What Ant's schema asks of a suite, and all that both schemas let a test case have.
  const auto document = parsed(to_junit(report));
  for (const auto& [tag, suite] : document.get_child("testsuites")) {
    REQUIRE(tag == "testsuite");
    for (const char* needed : {"name", "package", "id", "timestamp", "hostname", "time"})
      CHECK(suite.get_optional<std::string>(std::string("<xmlattr>.") + needed));
    for (const char* needed : {"properties", "system-out", "system-err"}) CHECK(suite.count(needed) == 1);
    for (const auto& [inner, test_case] : suite) {
      if (inner != "testcase") continue;
      for (const auto& [name, value] : test_case.get_child("<xmlattr>"))
        CHECK((name == "classname" || name == "name" || name == "time"));
    }
  }
  const auto located = cases_of(parsed(to_junit(report, true))).at("anger_is_causal");
  CHECK(located.get<std::string>("<xmlattr>.file") == "capitals.proviso");
  CHECK(located.get<int>("<xmlattr>.line") == 47);
}

TEST_CASE("JUnit: an error is told from a failure") {
  Report report = report_with_everything();
  report.checks[4].annotations.status = dsl::Annotations::Status::stable;
  const auto document = parsed(to_junit(report));
  CHECK(cases_of(document).at("undefined").get<std::string>("error.<xmlattr>.type") == "error");
  CHECK(document.get<int>("testsuites.testsuite.<xmlattr>.errors") == 1);
}

TEST_CASE("JUnit: bytes that XML cannot hold are shown as escapes") {
  Report report = report_with_everything();
  report.checks[0].expectations[0].reason = "a \x1b[31m <b> & \"c\"";
  const auto cases = cases_of(parsed(to_junit(report)));
  CHECK_THAT(cases.at("anger_is_causal").get<std::string>("failure"), Catch::Contains("a \\x1b[31m <b> & \"c\""));
}

TEST_CASE("SARIF: a result for each verdict, where the rule file states it") {
  const Report report = report_with_everything();
  const auto sarif = nlohmann::json::parse(to_sarif(report));
  CHECK(sarif["version"] == "2.1.0");
  const auto& run = sarif["runs"][0];
  const auto& rules = run["tool"]["driver"]["rules"];
  REQUIRE(run["results"].size() == report.checks.size() + report.edits.size() + report.examples.size());
  std::map<std::string, nlohmann::json> by_rule;
  for (const auto& result : run["results"]) {
    CHECK(rules[result["ruleIndex"].get<std::size_t>()]["id"] == result["ruleId"]);
    CHECK((result["kind"] == "fail") == (result["level"] != "none"));
    by_rule[result["ruleId"]] = result;
  }
  const auto& failed = by_rule.at("check/anger_is_causal");
  CHECK(failed["level"] == "error");
  CHECK(failed["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "capitals.proviso");
  CHECK(failed["locations"][0]["physicalLocation"]["region"]["startLine"] == 47);
  CHECK_FALSE(failed.contains("suppressions"));
  const auto& passed = by_rule.at("check/stays_fluent");
  CHECK(passed["kind"] == "pass");
  CHECK(passed["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "more%20rules.proviso");
  const auto& waived = by_rule.at("check/stays_calm");
  CHECK(waived["suppressions"][0]["justification"] ==
        "tracked as AUD-14: see \"the register\" (model-risk, until 2027-03-31)");
  CHECK(by_rule.at("check/was_waived")["level"] == "note");
  CHECK(run["artifacts"][1]["hashes"]["sha-256"] == report.rules[1].second);
}

TEST_CASE("SARIF: for readers that show whatever there is, problems alone") {
  Report report = report_with_everything();
  report.checks[3].where = "/rules/all.proviso:3";
  const auto all = nlohmann::json::parse(to_sarif(report))["runs"][0]["results"];
  const auto problems = nlohmann::json::parse(to_sarif(report, true))["runs"][0];
  CHECK(problems["results"].size() == problems["tool"]["driver"]["rules"].size());
  std::size_t standing = 0;
  for (const auto& result : all) {
    const bool stands = result["kind"] != "fail" || result.contains("suppressions");
    standing += stands;
    const auto& left = problems["results"];
    CHECK(stands ==
          std::none_of(left.begin(), left.end(), [&](const auto& one) { return one["ruleId"] == result["ruleId"]; }));
    if (result["ruleId"] == "check/stays_fluent")
      CHECK(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "file:///rules/all.proviso");
  }
  CHECK(standing > 1);
  CHECK(problems["results"].size() == all.size() - standing);
}

TEST_CASE("in-toto: the statement is on the model and the report, and a waiver is a warning") {
  Report report = report_with_everything();
  const auto statement = nlohmann::json::parse(to_attestation(report, "out/report.yaml", std::string(64, '5')));
  CHECK(statement["_type"] == "https://in-toto.io/Statement/v1");
  CHECK(statement["subject"][0]["digest"]["sha256"] == report.model.sha256);
  CHECK(statement["subject"][1] ==
        nlohmann::json({{"name", "report.yaml"}, {"digest", {{"sha256", std::string(64, '5')}}}}));
  const auto& predicate = statement["predicate"];
  CHECK(predicate["result"] == "FAILED");
  CHECK(predicate["warnedTests"] == nlohmann::json({"check/stays_calm", "check/undefined"}));
  CHECK(predicate["passedTests"][0] == "check/stays_fluent");
  CHECK(predicate["configuration"].size() == 3);
  report.checks = {report.checks[1]};
  report.examples.clear();
  CHECK(nlohmann::json::parse(to_attestation(report, "r", ""))["predicate"]["result"] == "WARNED");
  report.checks.clear();
  CHECK(nlohmann::json::parse(to_attestation(report, "r", ""))["predicate"]["result"] == "PASSED");
}

}  // namespace proviso::audit

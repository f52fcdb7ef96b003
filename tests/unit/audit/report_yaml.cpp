#include <catch2/catch.hpp>
#include <string>

#include "audit/report.hpp"
#include "audit/report_tree.hpp"
#include "runtime/formats/tensor_file.hpp"
#include "tests/support/reports.hpp"
#include "tests/support/schema.hpp"

namespace proviso::audit {
namespace {

using Catch::Contains;
using tests::report_with_everything;
using tests::schema_violations;

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  INFO("looking for " << from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

void check_refused(const std::string& text, const std::string& why) {
  INFO(why);
  CHECK_THROWS_AS(from_yaml(text, "r.yaml"), model::InputError);
  CHECK_THROWS_WITH(from_yaml(text, "r.yaml"), Contains(why) && Contains("r.yaml:"));
}

}  // namespace

TEST_CASE("A report reads back as it was written, from YAML and from JSON") {
  const std::string yaml = to_yaml(report_with_everything(), {});
  CHECK(to_yaml(from_yaml(yaml, "r.yaml"), {}) == yaml);
  const std::string json = to_json(report_with_everything(), {});
  CHECK(to_json(from_yaml(json, "r.json"), {}) == json);
  CHECK(to_json(from_yaml(yaml, "r.yaml"), {}) == json);

  const Report read = from_yaml(yaml, "r.yaml"), written = report_with_everything();
  CHECK(read.verdict() == written.verdict());
  CHECK(read.checks[1].status == Status::waived);
  CHECK(read.checks[1].status_before_waiver == Status::inconclusive);
  CHECK(read.checks[0].expectations[0].evidence[1].prompt == written.checks[0].expectations[0].evidence[1].prompt);
  CHECK(read.checks[0].expectations[0].evidence[2].after == 0.1 + 0.2);
  CHECK(read.run.seed == written.run.seed);

  Report largest = written;
  largest.run.seed = 18446744073709551615u;
  CHECK(from_yaml(to_yaml(largest, {}), "r.yaml").run.seed == largest.run.seed);
}

TEST_CASE("Every report satisfies the schema") {
  for (const EvidenceForm evidence : {EvidenceForm::full, EvidenceForm::hash, EvidenceForm::none})
    for (const bool reproducible : {false, true}) {
      CHECK(schema_violations(to_yaml(report_with_everything(), {reproducible, evidence})) == "");
      CHECK(schema_violations(to_json(report_with_everything(), {reproducible, evidence})) == "");
    }
  Report empty;
  empty.model.sha256 = std::string(64, '0');
  empty.run.date = "2026-11-23";
  CHECK(schema_violations(to_yaml(empty, {})) == "");
}

TEST_CASE("The schema is strict") {
  const std::string yaml = to_yaml(report_with_everything(), {});
  CHECK(schema_violations(replaced(yaml, "verdict: fail", "verdict: vacuous")) != "");
  CHECK(schema_violations(replaced(yaml, "device: cpu", "devise: cpu")) != "");
  CHECK(schema_violations(replaced(yaml, "interval: [-0.19, -0.04]", "interval: [-0.19]")) != "");
  CHECK(schema_violations(replaced(yaml, "n: 64", "n: 64.5")) != "");
}

TEST_CASE("Not-a-number and infinities are strings, floats keep every bit") {
  const Tree tree = tree_of(report_with_everything(), {});
  CHECK(tree["checks"][4]["expectations"][0]["value"] == "NaN");
  CHECK(tree["checks"][4]["expectations"][0]["baseline"] == "Infinity");
  const std::string yaml = to_yaml(report_with_everything(), {});
  CHECK_THAT(yaml, Contains("value: \"NaN\"") && Contains("after: 0.30000000000000004") &&
                       Contains("value: 1.25e-05") && Contains("c: 1.0e-07") && Contains("held: 0.75") &&
                       Contains("interval: [0.0, 1.0e+300]"));
}

TEST_CASE("Words that YAML would read as something else are quoted") {
  CHECK_THAT(to_yaml(report_with_everything(), {}), Contains("tags: [eu-ai-act:art-15, \"true\", \"12:30\"]") &&
                                                        Contains("date: \"2026-11-23\"") && Contains("layer: \"5\"") &&
                                                        Contains("\\u2028 \\x7f 日本"));
}

TEST_CASE("A reproducible report leaves out what two runs differ in") {
  Report first = report_with_everything(), second = first;
  second.run.seconds = 99;
  CHECK(to_yaml(first, {}) != to_yaml(second, {}));
  CHECK(to_yaml(first, {true}) == to_yaml(second, {true}));
}

TEST_CASE("Prompts leave the machine as asked") {
  const std::string hashed = to_yaml(report_with_everything(), {false, EvidenceForm::hash});
  const std::string none = to_yaml(report_with_everything(), {false, EvidenceForm::none});
  for (const std::string& yaml : {hashed, none})
    CHECK_THAT(yaml, !Contains("late again") && !Contains("You idiot") && !Contains("A calm prompt"));
  CHECK_THAT(hashed, Contains("prompt: \"sha256:") || Contains("prompt: sha256:"));
  CHECK_THAT(none, !Contains("prompt: "));
  CHECK_THAT(none, Contains("- {before: 1.0, after: 1.0}"));
}

TEST_CASE("A report that was changed is refused by the key") {
  const std::string yaml = to_yaml(report_with_everything(), {});
  check_refused(replaced(yaml, "n: 64", "n: many"), "checks[0].expectations[0].n: must be a whole number");
  check_refused(replaced(yaml, "n: 64", "number: 64"), "checks[0].expectations[0].n: is missing");
  check_refused(replaced(yaml, "severity: minor", "severity: tiny"),
                "checks[1].severity: must be one of info, minor, major, critical");
  check_refused(replaced(yaml, "where: capitals.proviso:47", "where: 47"), "checks[0].where: must be a string");
  check_refused(replaced(yaml, "where: capitals", "were: x\n    where: capitals"), "checks[0].were: is not a key");
  check_refused(replaced(yaml, "2027-03-31", "2027-3-31"), "checks[1].waiver.until: must be a date");
  check_refused(replaced(yaml, "[-0.19, -0.04]", "[-0.19]"), "expectations[0].interval: must be a list of two numbers");
  check_refused(replaced(yaml, "seed: 9007199254740993", "seed: -1"), "run.seed: must be a whole number, 0 or more");
  check_refused(replaced(yaml, "report: 1", "report: 2"), "proviso.report: this program reads reports of version 1");
  check_refused(replaced(yaml, "verdict: fail", "verdict: pass"), "verdict: says pass, but the results amount to fail");
  check_refused(replaced(yaml, "passed: 1", "passed: 2"), "summary: does not count what the report holds");
  check_refused(replaced(yaml, "circuits: []", "circuits: [x]"), "circuits[0]: must be a map of keys");
  check_refused("[1, 2]", "the report: must be a map");
  check_refused("just text", "the report: must be a map");
}

TEST_CASE("Text that is no report is refused without harm") {
  check_refused("", "the file is empty");
  check_refused("a: [1, 2", "r.yaml:1:");
  check_refused("a: 1\na: 2\n", "r.yaml:2:1: the key a stands here twice");
  check_refused("a: &x [1]\nb: *x\n", "anchors have no place");
  check_refused("a: *x\n", "r.yaml:");
  check_refused("a: !!binary aGk=\n", "tags have no place");
  check_refused("? [1, 2]\n: 3\n", "keys must be strings");
  check_refused("1: 2\n", "keys must be strings");
  check_refused("a: 1\n---\nb: 2\n", "more than one document");
  check_refused(std::string(100, '[') + std::string(100, ']'), "nested more deeply");
  check_refused(std::string(100000, '['), "r.yaml:");
  check_refused(std::string(50, '{') + "a", "r.yaml:");
  std::string laughs = "a0: &a0 [x]\n";
  for (int i = 1; i < 40; ++i)
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + ", *a" +
              std::to_string(i - 1) + "]\n";
  check_refused(laughs, "anchors have no place");
}

TEST_CASE("Any string goes through YAML unharmed") {
  for (const std::string text :
       {"",       " ",     "~",      "null", "Yes", "1e5",  "0x1F",        ".nan",         "- a",
        "a: b",   "a #b",  "a\tb",   "\"",   "'",   "\\",   "a\r\nb\n",    "\x01\x1b[31m", "\u0085\u009f",
        "\ufeff", "😀",    "ends: ", "a,b",  "[a]", "!tag", "%d",          "@at",          "`tick`",
        "*x",     "&x",    "---",    "...",  "=",   "<<",   "plain words", "2026-11-23",   "12:30:00",
        "+1",     "1_000", "y"}) {
    INFO("<" << text << ">");
    const Tree tree = {{"value", text}, {"list", {text, text}}};
    CHECK(parse_yaml_tree(yaml_text(tree), "t") == tree);
  }
  CHECK(parse_yaml_tree(yaml_text(Tree{{"value", "a\xff"}}), "t")["value"] == "a\ufffd");
}

}  // namespace proviso::audit

#include <array>
#include <cstdio>
#include <string>
#include <string_view>

#include "audit/markup.hpp"
#include "audit/report.hpp"
#include "audit/report_words.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {

namespace {

enum class Outcome { passed, failed, broken, skipped };

Outcome outcome_of(const Judgement& judgement) {
  if (judgement.status == Status::pass) return Outcome::passed;
  if (judgement.status == Status::waived || judgement.experimental) return Outcome::skipped;
  return judgement.status == Status::error ? Outcome::broken : Outcome::failed;
}

std::string why_skipped(const Judgement& judgement) {
  if (judgement.status != Status::waived) return "experimental, and " + std::string(status_name(judgement.status));
  return "waived " + waiver_text(*judgement.waiver);
}

/// The prompts that an example is wrong on, and how near its conditions came.
std::string example_lines(const ExampleResult& example) {
  std::string text = "\nfired on " + grouped(example.fired) + " of " + counted(example.prompts, "prompt");
  for (const Evidence& item : example.evidence) text += "\n" + markup(quoted(item.prompt));
  for (const ConditionResult& condition : example.conditions) {
    text += "\n" + markup(condition.condition) + ": " + number_text(condition.activation) + " at position " +
            grouped(condition.position) + ", margin " + number_text(condition.margin) + ": " +
            markup(quoted(condition.prompt));
  }
  return text;
}

/// `example` is what an example's judgement is of, else null.
std::string test_case(const Judgement& judgement, const ExampleResult* example, bool locations) {
  const auto colon = judgement.where.rfind(':');
  const std::string file = judgement.where.substr(0, colon);
  std::string text = "    <testcase" + attribute("classname", file) + attribute("name", judgement.name) +
                     attribute("time", "0");  // a check has no time of its own: what checks share is computed once
  if (locations) {
    text += attribute("file", file);
    if (colon != std::string::npos) text += attribute("line", judgement.where.substr(colon + 1));
  }
  const Outcome outcome = outcome_of(judgement);
  if (outcome == Outcome::passed) return text + "/>\n";
  text += ">\n";
  if (outcome == Outcome::skipped) {
    text += "      <skipped" + attribute("message", why_skipped(judgement)) + "/>\n";
  } else {
    const std::string tag = outcome == Outcome::broken ? "error" : "failure";
    const std::string severity(dsl::severity_name(judgement.severity));
    text += "      <" + tag + attribute("type", status_name(judgement.status)) +
            attribute("message", std::string(status_name(judgement.status)) + ", " + severity) + ">\n" +
            markup(judgement.where);
    if (judgement.expectations != nullptr) {
      for (const ExpectationResult& expectation : *judgement.expectations) {
        text += "\n" + markup(status_name(expectation.status)) + ": " + markup(expectation_line(expectation));
      }
    }
    if (example != nullptr) text += example_lines(*example);
    text += "\n      </" + tag + ">\n";
  }
  return text + "    </testcase>\n";
}

/// "8.400": never in powers of ten.
std::string seconds(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.3f", value);
  return text;
}

struct Tally {
  std::array<int, 4> of{};  ///< by `Outcome`
  int all = 0;

  void add(Outcome outcome) {
    ++all;
    ++of[static_cast<std::size_t>(outcome)];
  }
  std::string attributes() const {
    const auto count = [&](Outcome outcome) { return std::to_string(of[static_cast<std::size_t>(outcome)]); };
    return attribute("tests", std::to_string(all)) + attribute("failures", count(Outcome::failed)) +
           attribute("errors", count(Outcome::broken)) + attribute("skipped", count(Outcome::skipped));
  }
};

/// Of a suite: what was audited, and by what.
std::string properties(const Report& report) {
  std::string text = "    <properties>\n";
  const auto add = [&text](std::string_view name, std::string_view value) {
    text += "      <property" + attribute("name", name) + attribute("value", value) + "/>\n";
  };
  add("proviso", report.version);
  add("model", report.model.name);
  add("model.sha256", report.model.sha256);
  add("seed", std::to_string(report.run.seed));
  add("verdict", status_name(report.verdict()));
  for (const auto& [file, sha256] : report.rules) add("rules.sha256: " + file, sha256);
  return text + "    </properties>\n";
}

}  // namespace

std::string to_junit(const Report& report, bool locations) {
  struct Suite {
    const char* name;
    Judgement::Kind kind;
  };
  constexpr Suite kSuites[] = {
      {"checks", Judgement::Kind::check}, {"edits", Judgement::Kind::edit}, {"examples", Judgement::Kind::example}};
  const auto all = judgements(report);
  std::string suites;
  int id = 0;
  for (const Suite& suite : kSuites) {
    Tally tally;
    std::string cases;
    std::size_t example = 0;
    for (const Judgement& judgement : all) {
      if (judgement.kind != suite.kind) continue;
      tally.add(outcome_of(judgement));
      const bool of_example = suite.kind == Judgement::Kind::example;
      cases += test_case(judgement, of_example ? &report.examples[example++] : nullptr, locations);
    }
    if (tally.all == 0) continue;
    // The run is one: its time stands with the first suite.
    suites += "  <testsuite" + attribute("name", suite.name) + attribute("package", "proviso") +
              attribute("id", std::to_string(id)) + tally.attributes() +
              attribute("timestamp", report.run.date + "T00:00:00") + attribute("hostname", "localhost") +
              attribute("time", id == 0 ? seconds(report.run.seconds) : "0") + ">\n" + properties(report) + cases +
              "    <system-out/>\n    <system-err/>\n  </testsuite>\n";
    ++id;
  }
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n" + suites + "</testsuites>\n";
}

}  // namespace proviso::audit

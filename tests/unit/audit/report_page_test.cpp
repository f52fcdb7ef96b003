// The renderings for people's browsers and pull requests.

#include <catch2/catch.hpp>
#include <regex>
#include <string>
#include <vector>

#include "audit/markup.hpp"
#include "audit/report.hpp"
#include "audit/report_plot.hpp"
#include "tests/support/reports.hpp"

namespace proviso::audit {
namespace {

using Catch::Contains;
using tests::report_with_everything;

const std::string kHostile =
    "<script>alert(1)</script> \"onload=\"x\" </pre></style></details> & | `code` ![i](https://e.example/p.png) "
    "@maintainer #12 $x$ [a](javascript:b)\n| new | row |\r\x1b[31m \u202etxt.exe\u2066 www.e.example <img src=x>";

/// Every text that a rule file, a prompt, a model or a file's name may bring.
Report hostile_report() {
  Report report = report_with_everything();
  report.model.name = report.run.only = report.rules[0].first = report.data[0].first = kHostile;
  report.run.machine->processor = report.run.merged[0].file = report.version = kHostile;
  for (CheckResult& check : report.checks) {
    check.name = check.annotations.title = check.annotations.description = check.where = kHostile;
    check.annotations.tags = {kHostile};
    check.annotations.meta = {{kHostile, kHostile}};
    if (check.waiver) check.waiver->because = check.waiver->by = kHostile;
    for (ExpectationResult& expectation : check.expectations) {
      expectation.text = expectation.reason = expectation.estimate.why_no_interval = kHostile;
      if (expectation.control) expectation.control->kind = kHostile;
      if (expectation.across) expectation.across->values[0].first = kHostile;
      for (Evidence& item : expectation.evidence) item.prompt = item.output = kHostile;
    }
  }
  EditResult& edit = report.edits[0];
  edit.name = edit.method = edit.where = edit.changes[0].tensor = edit.costs[0].first = kHostile;
  edit.parameters[0] = {kHostile, kHostile};
  edit.parts[0].algebra[0].first = kHostile;
  for (ExampleResult& example : report.examples) {
    example.rule = example.where = kHostile;
    for (Evidence& item : example.evidence) item.prompt = kHostile;
  }
  RuleActivity& activity = report.rule_activity[0];
  activity.rule = activity.sentence = activity.site = activity.branches[0].first = kHostile;
  report.features[0].name = report.features[0].constructor = report.features[0].measures[0].first = kHostile;
  report.annotated[0].declaration = report.annotated[0].annotations.title = kHostile;
  return report;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("HTML: whatever a report says stays text") {
  const std::string page = to_html(hostile_report());
  for (const char* part : {"<script", "<img", "onload=\"x", "</pre></style>", "\x1b", "\u202e", "\u2066"}) {
    INFO(part);
    CHECK(page.find(part) == std::string::npos);
  }
  CHECK(count(page, "</style>") == 1);
  CHECK_THAT(page, Contains("&lt;script&gt;alert(1)&lt;/script&gt;") && Contains("\\u202etxt.exe"));
  // Whatever is opened is closed, in order: nothing escaped from its place.
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z0-9]+)[^<>]*>");
  const std::string body = page.substr(page.find("<body"));
  for (std::sregex_iterator at(body.begin(), body.end(), tag), end; at != end; ++at) {
    const std::string name = (*at)[2];
    if (name == "br" || name == "html") continue;
    if ((*at)[1].length() == 0) {
      open.push_back(name);
    } else {
      REQUIRE_FALSE(open.empty());
      CHECK(open.back() == name);
      open.pop_back();
    }
  }
  CHECK(open.empty());
}

TEST_CASE("HTML: a page loads nothing, runs nothing, and links only within itself") {
  const std::string page = to_html(report_with_everything());
  CHECK_THAT(page, Contains("default-src 'none'") && !Contains("<script") && !Contains(" src=") &&
                       !Contains("@import") && !Contains("url("));
  const std::regex link("href=\"([^\"]*)\"");
  for (std::sregex_iterator at(page.begin(), page.end(), link), end; at != end; ++at) {
    const std::string target = (*at)[1];
    if (target == "data:,") continue;
    INFO(target);
    REQUIRE(target.starts_with("#"));
    CHECK(count(page, " id=\"" + target.substr(1) + "\"") == 1);
  }
}

TEST_CASE("HTML: the verdict comes first, what did not pass stands open, and every number is there") {
  const Report report = report_with_everything();
  const std::string page = to_html(report);
  CHECK_THAT(page, Contains("<h1>Verdict: <span aria-hidden=\"true\">✗</span> fail</h1>"));
  CHECK(page.find("<h1>") < page.find("<h2"));
  CHECK_THAT(page, Contains("class=\"judgement fail\" id=\"check-anger_is_causal\" open") &&
                       Contains("class=\"judgement pass\" id=\"check-stays_fluent\">"));
  CHECK_THAT(page, Contains(markup("You are late again.\nWhy?")) && Contains(report.model.sha256) &&
                       Contains(report.edits[0].changes[0].sha256_after));
  for (const std::string line : {"interval: [-0.19, -0.04]", "p_holm: 0.03", "value: 1.25e-05"}) {
    INFO(line);
    CHECK_THAT(page, Contains(line));
  }
}

TEST_CASE("A plot says in words what it draws, and draws what is infinite as an arrow") {
  ExpectationResult expectation = report_with_everything().checks[0].expectations[0];
  CHECK_THAT(plot(expectation),
             Contains("role=\"img\" aria-label=\"measured -12% [-19%, -4%], asked &lt;= -30% at 95%, "
                      "without it 25%, against 32 random directions: mean -1%"));
  CHECK_THAT(plot(expectation), Contains(">&lt;= -30%</text>") && Contains("class=\"meets\""));
  expectation.estimate.interval = Interval{-0.19, std::numeric_limits<double>::infinity()};
  CHECK_THAT(plot(expectation), !Contains("inf") && !Contains("nan"));
  expectation = report_with_everything().checks[4].expectations[0];
  expectation.baseline.reset();
  CHECK(plot(expectation).empty());
  CHECK(small_plot(expectation).empty());
}

TEST_CASE("Markdown: whatever a report says stays text, in its cell") {
  const std::string text = GENERATE(to_markdown(hostile_report()), to_annex_iv(hostile_report()));
  for (const char* part :
       {"<script", "<img", "[i](", "[a](", "@maintainer", "https:", "www.e", "`code", "\x1b", "\u202e", "\r"}) {
    INFO(part);
    const std::string inline_text = std::regex_replace(text, std::regex("<details><summary>[^\n]*\n"), "");
    CHECK(std::regex_replace(inline_text, std::regex(R"(\\.)"), "").find(part) == std::string::npos);
  }
  // The rows of a table have as many cells as its head.
  std::size_t columns = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with("<details>")) {  // a line of HTML, where a backslash escapes nothing
      CHECK_THAT(line, !Contains("<img") && !Contains("<script"));
    }
    if (!line.starts_with("|")) {
      columns = 0;
      continue;
    }
    line = std::regex_replace(line, std::regex(R"(\\.)"), "");
    const auto bars = count(line, "|");
    if (columns == 0) columns = bars;
    CHECK(bars == columns);
  }
}

TEST_CASE("Markdown and HTML show prompts as the evidence was redacted") {
  for (const EvidenceForm form : {EvidenceForm::hash, EvidenceForm::none}) {
    const Report report = redacted(report_with_everything(), form);
    for (const std::string& text : {to_html(report), to_markdown(report)}) {
      CHECK_THAT(text, !Contains("late again") && !Contains("You idiot") && !Contains("A calm prompt"));
    }
    CHECK(to_html(redacted(report, form)) == to_html(report));
  }
}

}  // namespace proviso::audit

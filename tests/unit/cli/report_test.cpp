// `proviso report`: reports in, renderings, comparisons and exit codes out.

#include "audit/report.hpp"

#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "audit/verdict.hpp"
#include "tests/support/ptest.hpp"
#include "tests/support/reports.hpp"
#include "tests/support/schema.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/cli/run_program.hpp"

namespace proviso {
namespace {

using Catch::Contains;

/// A folder of reports.
struct Reports {
  std::string write(const std::string& name, const audit::Report& report) const {
    const std::string path = folder / name;
    test::write_bytes(path, audit::to_yaml(report, {}));
    return path;
  }
  test::TemporaryFolder folder;
};

audit::Report worse_report() {
  audit::Report report = tests::report_with_everything();
  report.checks[3].expectations[0].status = audit::Status::fail;
  conclude(report.checks[3]);
  return report;
}

}  // namespace

TEST_CASE("report renders to a file or to standard output") {
  const Reports reports;
  const std::string report = reports.write("r.yaml", tests::report_with_everything());
  const std::string page = reports.folder / "r.html";
  CHECK(run_program({"report", "html", report, "-o", page}).code == 0);
  CHECK_THAT(test::read_bytes(page), Catch::StartsWith("<!DOCTYPE html>") && Contains("late again"));
  CHECK_THAT(run_program({"report", "html", report, "--evidence", "none"}).out, !Contains("late again"));
  CHECK_THAT(run_program({"report", "markdown", "-"}, test::read_bytes(report)).out,
             Catch::StartsWith("## ❌ fail: Proviso audit of SmolLM2"));
  const auto statement = nlohmann::json::parse(run_program({"report", "attestation", report}).out);
  CHECK(statement["subject"][1]["name"] == "r.yaml");
  CHECK(run_program({"report", "html", reports.folder / "absent.yaml"}).code == 2);
  CHECK(run_program({"report", "html", report, "-o", reports.folder / "absent/r.html"}).code != 0);
}

// What only a browser tells; the structure of pages is tested beside the code that makes them.
TEST_CASE("pages have no fault in a headless Chromium, where there is one") {
  const Reports reports;
  const std::string report = reports.write("r.yaml", tests::report_with_everything());
  const std::string page = reports.folder / "report.html", log = reports.folder / "log.txt";
  REQUIRE(run_program({"report", "html", report, "-o", page}).code == 0);
  const std::string command =
      "'" PROVISO_SOURCE_DIR "/tests/browser/check_pages.py' '" + page + "' > '" + log + "' 2>&1";
  const int code = WEXITSTATUS(std::system(command.c_str()));
  constexpr int kNoBrowser = 77;
  if (code == kNoBrowser) {
    WARN("no chromium and chromedriver: pages were not opened");
    return;
  }
  INFO(test::read_bytes(log));
  CHECK(code == 0);
}

TEST_CASE("report diff exits with 1 where something got worse, and only there") {
  const Reports reports;
  const std::string before = reports.write("before.yaml", tests::report_with_everything());
  const std::string after = reports.write("after.yaml", worse_report());
  const Ran same = run_program({"report", "diff", before, before});
  CHECK(same.code == 0);
  CHECK_THAT(same.out, Contains("0 worse, 0 better, 0 other"));
  const Ran worse = run_program({"report", "diff", before, after});
  CHECK(worse.code == 1);
  CHECK_THAT(worse.out, Contains("Got worse") && Contains("stays_fluent") && Contains("pass -> fail"));
  CHECK(run_program({"report", "diff", after, before}).code == 0);

  const Ran json = run_program({"report", "diff", before, after, "--output", "json"});
  CHECK(json.code == 1);
  CHECK(nlohmann::json::parse(json.out)["changes"][0]["trend"] == "worse");
  const std::string file = reports.folder / "diff.txt";
  CHECK(run_program({"report", "diff", before, after, "-o", file}).code == 1);
  CHECK_THAT(test::read_bytes(file), Contains("Got worse"));
  CHECK_THAT(run_program({"report", "diff", before, after, "--output", "yaml"}).out, Contains("trend: \"worse\""));
  CHECK(run_program({"report", "diff", before}).code == 2);
  CHECK(run_program({"report", "diff", before, reports.folder / "absent.yaml"}).code == 2);
}

TEST_CASE("report merge writes a report like any other, or names the two that disagree") {
  const Reports reports;
  audit::Report first = tests::report_with_everything(), second = first;
  first.checks.resize(2);
  second.checks.erase(second.checks.begin());
  const std::string a = reports.write("a.yaml", first), b = reports.write("b.yaml", second);
  const std::string whole = reports.folder / "whole.yaml";
  const Ran merged = run_program({"report", "merge", a, b, "-o", whole});
  INFO(merged.err);
  REQUIRE(merged.code == 0);
  CHECK(tests::schema_violations(test::read_bytes(whole)) == "");
  CHECK_THAT(run_program({"report", "show", whole}).out, Contains("of 5") && Contains("verdict:  fail"));
  const auto json = nlohmann::json::parse(run_program({"report", "merge", a, b, "--output", "json"}).out);
  CHECK(json["run"]["merged"][1]["file"] == b);
  CHECK(json["run"]["merged"][0]["sha256"].get<std::string>().size() == 64);

  const Ran refused =
      run_program({"report", "merge", a, reports.write("c.yaml", worse_report()), b, "-o", whole + "2"});
  CHECK(refused.code == 2);
  CHECK_THAT(refused.err, Contains("c.yaml and ") && Contains("b.yaml disagree on check stays_fluent"));
  CHECK_FALSE(std::filesystem::exists(whole + "2"));
}

TEST_CASE("the step of the GitHub action renders the report for every reader and fails as the audit did") {
  const Reports reports;
  const std::string report = reports.write("made.yaml", tests::report_with_everything());
  // Stands in for the program: `audit` writes the report and fails, unless its model is named "absent".
  const std::string program = reports.folder / "program";
  test::write_bytes(program, "#!/bin/bash\necho \"$*\" >>'" + program +
                                 ".calls'\n[[ $* != *absent* ]] || exit 2\ncp '" + report +
                                 "' \"${@: -1}\"\n[[ $1 != audit ]]\n");
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  const std::string output = reports.folder / "out", summary = reports.folder / "summary", set = reports.folder / "set";
  const auto step = [&](const std::string& model) {
    const std::string variables = "PROVISO='" + program +
                                  "' PROVISO_RULES=' a b.proviso\n\nc.proviso' PROVISO_MODEL='" + model +
                                  "' PROVISO_OPTIONS='--threads 2' PROVISO_OUTPUT='" + output +
                                  "' GITHUB_STEP_SUMMARY='" + summary + "' GITHUB_OUTPUT='" + set + "' ";
    return WEXITSTATUS(std::system((variables + "'" PROVISO_SOURCE_DIR "/ci/github-action/audit.sh'").c_str()));
  };
  CHECK(step("m.gguf") == 1);
  CHECK_THAT(
      test::read_bytes(program + ".calls"),
      Catch::StartsWith("audit a b.proviso c.proviso --model m.gguf --fail-on info --evidence hash --threads 2 -o " +
                        output + "/report.yaml\n"));
  for (const char* name : {"report.yaml", "report.html", "report.md", "report.sarif", "report.xml"}) {
    INFO(name);
    CHECK(std::filesystem::exists(output + "/" + name));
  }
  CHECK(test::read_bytes(set) == "verdict=fail\nreport=" + output + "/report.yaml\n");
  CHECK(test::read_bytes(summary) == test::read_bytes(report));
  CHECK(step("absent") == 2);
  CHECK_FALSE(std::filesystem::exists(output + "/report.yaml"));
}

}  // namespace proviso

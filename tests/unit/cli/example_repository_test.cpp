// docs/example-repository is used as its readers would: its rules are checked, its workflow and hooks name what is
// there, and its gate runs.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <regex>
#include <string>
#include <vector>

#include "tests/support/schema.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/cli/run_program.hpp"

namespace proviso {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

const std::string kRoot = PROVISO_SOURCE_DIR "/docs/example-repository";
const std::string kModel = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The repository, copied, as the folder that relative paths are meant from.
class Copied {
 public:
  Copied() : before_(fs::current_path()) {
    fs::copy(kRoot, folder_ / "repository", fs::copy_options::recursive);
    fs::current_path(folder_ / "repository");
  }
  ~Copied() { fs::current_path(before_); }

 private:
  test::TemporaryFolder folder_;
  fs::path before_;
};

std::vector<std::string> all_of(const std::string& text, const std::string& pattern) {
  std::vector<std::string> found;
  const std::regex expression(pattern);
  for (std::sregex_iterator at(text.begin(), text.end(), expression), end; at != end; ++at) found.push_back((*at)[1]);
  return found;
}

}  // namespace

TEST_CASE("the example repository's hooks pass on its rules") {
  const Copied here;
  const std::string hooks = test::read_bytes(PROVISO_SOURCE_DIR "/.pre-commit-hooks.yaml");
  const auto ids = all_of(hooks, "- id: (\\S+)"), entries = all_of(hooks, "entry: proviso ([^\n]+)");
  REQUIRE(ids.size() == entries.size());
  for (const auto& used : all_of(test::read_bytes(".pre-commit-config.yaml"), "- id: (\\S+)")) {
    const auto found = std::find(ids.begin(), ids.end(), used);
    REQUIRE(found != ids.end());
    auto arguments = all_of(entries[static_cast<std::size_t>(found - ids.begin())] + " ", "(\\S+) ");
    arguments.push_back("rules/release.proviso");
    const Ran ran = run_program(arguments);
    INFO(used << ran.out << ran.err);
    CHECK(ran.code == 0);
  }
  // And find what is wrong.
  test::write_bytes("rules/bad.proviso", "check c { expect accuracy(nothing) >= 90% }\n");
  CHECK(run_program({"check", "rules/bad.proviso"}).code == 2);
  CHECK(run_program({"fmt", "--check", "rules/bad.proviso"}).code == 0);
  test::write_bytes("rules/bad.proviso", "check   c { expect accuracy(nothing) >= 90% }\n");
  CHECK(run_program({"fmt", "--check", "rules/bad.proviso"}).code == 1);
}

TEST_CASE("the example repository's workflows name what is there") {
  const Copied here;
  const std::string github = test::read_bytes(".github/workflows/audit.yml"),
                    gitlab = test::read_bytes(".gitlab-ci.yml");
  for (const std::string& text : {github, gitlab, test::read_bytes("README.md")}) {
    const auto named = all_of(text, "((?:rules|reports)/[A-Za-z_./-]+\\.(?:proviso|yaml))");
    CHECK_FALSE(named.empty());
    for (const auto& path : named) {
      INFO(path);
      CHECK(fs::exists(path));
    }
  }
  const std::string action = test::read_bytes(PROVISO_SOURCE_DIR "/ci/github-action/action.yml");
  for (const auto& input : all_of(github.substr(github.find("with:")), "\n          ([a-z-]+):"))
    CHECK_THAT(action, Contains("\n  " + input + ":"));
  // What GitLab's job runs, but for the audit, on the report of the last release.
  for (const auto& command : all_of(gitlab, "- proviso (report [^\n]+)")) {
    auto arguments = all_of(command + " ", "(\\S+) ");
    for (auto& argument : arguments) {
      if (argument == "report.yaml") argument = "reports/baseline.yaml";
    }
    INFO(command);
    CHECK(run_program(arguments).code == 0);
  }
  CHECK(fs::exists("report.html"));
  CHECK_THAT(test::read_bytes("report.xml"), Contains("file=\"rules/release.proviso\""));
}

TEST_CASE("the example repository's baseline is a report of its rules") {
  const std::string baseline = test::read_bytes(kRoot + "/reports/baseline.yaml");
  CHECK(tests::schema_violations(baseline) == "");
  const std::string rules = test::read_bytes(kRoot + "/rules/release.proviso");
  for (const auto& check : all_of(rules, "\ncheck (\\w+)")) CHECK_THAT(baseline, Contains("name: " + check + "\n"));
  CHECK_THAT(baseline, Contains("verdict: pass"));
}

TEST_CASE("the example repository's gate passes against its baseline, and stops what got worse", "[model]") {
  const Copied here;
  const Ran same = run_program({"audit", "rules/release.proviso", "--model", kModel, "--baseline",
                                "reports/baseline.yaml", "--as-of", "2026-11-28", "-o", "report.yaml"});
  INFO(same.out << same.err);
  CHECK(same.code == 0);
  const Ran diff = run_program({"report", "diff", "reports/baseline.yaml", "report.yaml"});
  INFO(diff.out);
  CHECK(diff.code == 0);
  // After its last day the waiver covers no more.
  const Ran later = run_program({"audit", "rules/release.proviso", "--model", kModel, "--baseline",
                                 "reports/baseline.yaml", "--as-of", "2028-01-01", "-o", "late.yaml"});
  CHECK(later.code == 1);
}

}  // namespace proviso

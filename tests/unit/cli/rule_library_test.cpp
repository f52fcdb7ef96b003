// The shipped rule library: every pack is sound, formatted, described, and judges on prompts that built nothing.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "tests/support/schema.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/cli/run_program.hpp"

using Catch::Matchers::Contains;

namespace proviso {
namespace {

namespace fs = std::filesystem;

const std::string kRules = PROVISO_SOURCE_DIR "/rules/";
const std::string kModel = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The folders that hold names for others to use: NAME/NAME.proviso.
std::vector<std::string> packs() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kRules)) {
    const std::string name = entry.path().filename();
    if (fs::exists(entry.path() / (name + ".proviso"))) names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

std::vector<std::string> rule_files(const std::string& pack) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(kRules + pack)) {
    if (entry.path().extension() == ".proviso") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

std::set<std::string> lines_of(const fs::path& path) {
  std::set<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.insert(line);
  return lines;
}

}  // namespace

TEST_CASE("every pack of the library is sound, formatted and described") {
  REQUIRE(packs().size() >= 14);
  const std::string results = test::read_bytes(PROVISO_SOURCE_DIR "/docs/packs.md");
  for (const auto& pack : packs()) {
    INFO(pack);
    for (const auto& file : rule_files(pack)) {
      const Ran checked = run_program({"check", "--strict", file});
      CHECK(checked.out == "");
      CHECK(checked.code == 0);
      CHECK(run_program({"fmt", "--check", file}).code == 0);
    }
    CHECK(fs::exists(kRules + pack + "/README.md"));
    if (fs::exists(kRules + pack + "/audit.proviso")) CHECK_THAT(results, Contains("## " + pack + "\n"));
  }
}

TEST_CASE("a pack's names are found as std/NAME from any folder") {
  const test::TemporaryFolder folder;
  for (const auto& pack : packs()) {
    test::write_bytes(folder / "mine.proviso", "use std/" + pack + " as p\n");
    CHECK(run_program({"check", folder / "mine.proviso"}).out == "");
  }
}

TEST_CASE("no prompt that judges a pack's feature has built it, or compared its layers") {
  for (const auto& pack : packs()) {
    std::vector<fs::path> build, layers, held;
    for (const auto& entry : fs::directory_iterator(kRules + pack + "/data")) {
      const std::string stem = entry.path().stem();
      if (stem.ends_with("_build")) build.push_back(entry.path());
      if (stem.ends_with("_layers")) layers.push_back(entry.path());
      if (stem.ends_with("_held")) held.push_back(entry.path());
    }
    for (const auto& path : build) CHECK(lines_of(path).size() >= 60);
    std::vector<std::vector<fs::path>> splits{build, layers, held};
    for (std::size_t i = 0; i < splits.size(); ++i) {
      for (std::size_t j = i + 1; j < splits.size(); ++j) {
        for (const auto& a : splits[i]) {
          for (const auto& b : splits[j]) {
            const auto left = lines_of(a), right = lines_of(b);
            std::vector<std::string> shared;
            std::ranges::set_intersection(left, right, std::back_inserter(shared));
            INFO(a << " and " << b);
            CHECK(shared == std::vector<std::string>());
          }
        }
      }
    }
  }
}

TEST_CASE("every pack is sound for SmolLM2", "[model]") {
  for (const auto& pack : packs()) {
    const Ran checked = run_program({"check", kRules + pack + "/" + pack + ".proviso", "--model", kModel});
    CHECK(checked.out == "");
    CHECK(checked.code == 0);
  }
}

TEST_CASE("the example of the shipped autoencoder is sound and formatted") {
  const std::string example = kRules + "autoencoders/french_latents.proviso";
  const Ran checked = run_program({"check", "--strict", example});
  CHECK(checked.out == "");
  CHECK(checked.code == 0);
  CHECK(run_program({"fmt", "--check", example}).code == 0);
}

TEST_CASE("the shipped autoencoder stands for what SmolLM2 has at its site, on text that it never saw", "[model]") {
  const Ran ran = run_program({"sae", "eval", kRules + "autoencoders/resid_post_15", "--model", kModel, "--text",
                               kRules + "corpus/held_out", "--output", "json"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const auto measured = nlohmann::json::parse(ran.out);
  CHECK(measured["variance_explained"] > 0.65);
  CHECK(measured["loss_recovered"] > 0.88);
  CHECK(run_program({"check", "--strict", kRules + "autoencoders/french_latents.proviso", "--model", kModel}).code ==
        0);
}

// All of every audit takes a quarter of an hour: `scripts/run-packs`.
TEST_CASE("the first check of every pack's audit is measured", "[model]") {
  static const std::regex check(R"(check (\w+))");
  const test::TemporaryFolder folder;
  for (const auto& pack : packs()) {
    const std::string audit = kRules + pack + "/audit.proviso";
    if (!fs::exists(audit)) continue;
    const std::string text = test::read_bytes(audit);
    std::smatch first;
    REQUIRE(std::regex_search(text, first, check));
    INFO(pack << ": " << first[1]);
    const Ran ran = run_program({"audit", audit, "--model", kModel, "--only", first[1], "--cache", folder / "cache"});
    CHECK((ran.code == 0 || ran.code == 1));
    CHECK_THAT(tests::schema_violations(ran.out), Catch::Equals(""));
    CHECK_THAT(ran.out, Contains("name: " + first[1].str()));
    CHECK_THAT(ran.out, !Contains("status: error"));
  }
}

}  // namespace proviso

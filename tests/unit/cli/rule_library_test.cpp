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

#include "dsl/check.hpp"
#include "dsl/metric_traits.hpp"
#include "dsl/prompt_file.hpp"
#include "dsl/render.hpp"
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

/// A pack's names and its audit, as `proviso audit` is given them.
struct Pack {
  explicit Pack(const std::string& name)
      : readme(test::read_bytes(kRules + name + "/README.md")),
        audit(test::read_bytes(kRules + name + "/audit.proviso")) {
    auto checked =
        dsl::check_files(sources, {kRules + name + "/" + name + ".proviso", kRules + name + "/audit.proviso"},
                         {{}, kRules, /*look_for_data=*/true});
    INFO(dsl::render_text(checked.diagnostics, sources));
    REQUIRE(checked.value);
    rules = std::move(*checked.value);
  }

  std::vector<std::string> texts(dsl::PromptsId set) const {
    std::vector<dsl::Prompt> prompts;
    if (const auto* file = std::get_if<dsl::PromptFile>(&rules.prompts[set].source)) {
      auto read = dsl::read_prompt_file(*file, test::read_bytes(file->path));
      REQUIRE(read.value);
      prompts = std::move(*read.value);
    } else {
      prompts = std::get<std::vector<dsl::Prompt>>(rules.prompts[set].source);
    }
    std::vector<std::string> texts;
    for (const auto& prompt : prompts) texts.push_back(prompt.text);
    return texts;
  }

  /// Whether an area under the curve with an interval is asked of the feature, on texts that built nothing.
  bool is_validated(dsl::FeatureId feature) const {
    std::set<std::string> built;
    for (const dsl::PromptsId set : dsl::built_from(rules.features[feature])) {
      for (const auto& text : texts(set)) built.insert(text);
    }
    for (const auto& check : rules.checks) {
      for (const auto& expectation : check.expectations) {
        const auto* area = std::get_if<dsl::metric::Auroc>(&expectation.metric.node);
        if (area == nullptr || area->feature != feature || !expectation.confidence) continue;
        bool unseen = true;
        for (const dsl::PromptsId set : {area->p, area->q}) {
          for (const auto& text : texts(set)) unseen = unseen && !built.contains(text);
        }
        if (unseen) return true;
      }
    }
    return false;
  }

  /// Whether a feature is read, or a rule kept silent, on prose of no subject.
  bool is_neutral_somewhere() const {
    std::set<dsl::PromptsId> used;
    for (const auto& rule : rules.rules) used.insert(rule.silent_on.begin(), rule.silent_on.end());
    for (const auto& check : rules.checks) {
      for (const auto& expectation : check.expectations) {
        for (const dsl::PromptsId set : dsl::prompt_sets(expectation.metric)) used.insert(set);
      }
    }
    return std::ranges::any_of(used, [&](dsl::PromptsId set) { return rules.prompts[set].name == "plain_text"; });
  }

  dsl::SourceSet sources;
  dsl::RuleSet rules;
  std::string readme, audit;
};

std::size_t count(const std::string& text, const std::regex& pattern) {
  return static_cast<std::size_t>(
      std::distance(std::sregex_iterator(text.begin(), text.end(), pattern), std::sregex_iterator()));
}

bool is_contrast(const dsl::FeatureDecl& feature) {
  return std::holds_alternative<dsl::Contrast>(feature.constructor) ||
         std::holds_alternative<dsl::Probe>(feature.constructor);
}

}  // namespace

TEST_CASE("every pack is what a pack is: tags, severities, sixty prompts a side, features judged on others") {
  const std::string results = test::read_bytes(PROVISO_SOURCE_DIR "/docs/packs.md");
  for (const auto& name : packs()) {
    if (!fs::exists(kRules + name + "/audit.proviso")) continue;
    INFO(name);
    const Pack pack(name);
    for (const char* part : {"## Prompts\n", "\nNeutral: ", "## Bounds and severities\n", "## What to expect\n",
                             "## What it cannot show\n", "## Results\n"}) {
      CHECK_THAT(pack.readme, Contains(part));
    }
    static const std::regex severities(R"(\n  severity (info|minor|major|critical)\n)");
    CHECK(count(pack.audit, severities) == pack.rules.checks.size());
    for (const auto& check : pack.rules.checks) {
      INFO(check.name);
      const auto tagged = [&](const char* frame) {
        return std::ranges::any_of(check.annotations.tags, [&](const auto& tag) { return tag.starts_with(frame); });
      };
      CHECK(tagged("nist-ai-rmf:"));
      CHECK(tagged("eu-ai-act:art-"));
      CHECK_THAT(pack.readme, Contains("`" + check.name + "`"));  // … and why it is as severe as it is
      CHECK_THAT(results, Contains("| " + check.name + " | "));
    }
    bool contrasts = false;
    for (dsl::FeatureId id = 0; id < pack.rules.features.size(); ++id) {
      const auto& feature = pack.rules.features[id];
      if (feature.imported || !is_contrast(feature)) continue;
      INFO("feature " << feature.name);
      contrasts = true;
      for (const dsl::PromptsId set : dsl::built_from(feature)) CHECK(pack.texts(set).size() >= 60);
      CHECK(pack.is_validated(id));
    }
    for (const auto& rule : pack.rules.rules) {
      const bool conditional =
          std::ranges::any_of(rule.interventions, [](const auto& each) { return each.condition != nullptr; });
      CHECK((rule.imported || !conditional || (!rule.fires_on.empty() && !rule.silent_on.empty())));
    }
    if (!contrasts) continue;
    CHECK(pack.is_neutral_somewhere());
    CHECK_THAT(pack.readme, Contains("## The layer\n"));
    CHECK(fs::exists(kRules + name + "/layers.proviso"));
  }
}

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

TEST_CASE("the examples of the shipped autoencoder are sound and formatted") {
  const auto examples = rule_files("autoencoders");
  CHECK(examples.size() >= 2);
  for (const auto& example : examples) {
    INFO(example);
    const Ran checked = run_program({"check", "--strict", example});
    CHECK(checked.out == "");
    CHECK(checked.code == 0);
    CHECK(run_program({"fmt", "--check", example}).code == 0);
  }
}

TEST_CASE("the shipped autoencoder stands for what SmolLM2 has at its site, on text that it never saw", "[model]") {
  const Ran ran = run_program({"sae", "eval", kRules + "autoencoders/resid_post_15", "--model", kModel, "--text",
                               kRules + "corpus/held_out", "--output", "json"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const auto measured = nlohmann::json::parse(ran.out);
  CHECK(measured["variance_explained"] > 0.65);
  CHECK(measured["loss_recovered"] > 0.88);
  for (const auto& example : rule_files("autoencoders"))
    CHECK(run_program({"check", "--strict", example, "--model", kModel}).code == 0);
}

namespace {

/// The packs in another folder, with the first lines of their prompts alone.
void write_shortened(const fs::path& folder) {
  constexpr int kLines = 3;
  static const std::regex library(R"(\nuse std/(\w+))");
  for (const auto& pack : packs()) {
    fs::create_directories(folder / pack / "data");
    for (const auto& file : rule_files(pack)) {
      const std::string text = std::regex_replace(test::read_bytes(file), library, "\nuse \"../$1/$1.proviso\"");
      test::write_bytes((folder / pack / fs::path(file).filename()).string(), text);
    }
    for (const auto& entry : fs::directory_iterator(kRules + pack + "/data")) {
      std::ifstream file(entry.path());
      std::string text, line;
      for (int i = 0; i < kLines && std::getline(file, line); ++i) text += line + "\n";
      test::write_bytes((folder / pack / "data" / entry.path().filename()).string(), text);
    }
  }
}

}  // namespace

// All of every audit takes a quarter of an hour: `scripts/run-packs`.
TEST_CASE("every pack is run whole, on the first lines of its prompts", "[model]") {
  const test::TemporaryFolder folder;
  write_shortened(folder.path());
  for (const auto& pack : packs()) {
    const fs::path here = folder.path() / pack;
    if (!fs::exists(here / "audit.proviso")) continue;
    INFO(pack);
    const Ran ran =
        run_program({"audit", (here / (pack + ".proviso")).string(), (here / "audit.proviso").string(), "--model",
                     kModel, "--allow-path", folder.path().string(), "--cache", folder / "cache"});
    INFO(ran.err);
    CHECK((ran.code == 0 || ran.code == 1));
    CHECK_THAT(tests::schema_violations(ran.out), Catch::Equals(""));
    CHECK_THAT(ran.out, !Contains("status: error"));
    static const std::regex check(R"(\ncheck (\w+))");
    const std::string audit = test::read_bytes((here / "audit.proviso").string());
    for (std::sregex_iterator at(audit.begin(), audit.end(), check), end; at != end; ++at)
      CHECK_THAT(ran.out, Contains("name: " + (*at)[1].str()));
  }
}

}  // namespace proviso

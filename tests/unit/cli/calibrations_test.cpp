// What editors are told of a feature on a real model.

#include "cli/calibrations.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "dsl/check.hpp"
#include "tests/support/temporary_folder.hpp"

using Catch::Matchers::Contains;

namespace proviso::cli {
namespace {

constexpr const char* kModel = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";

std::shared_ptr<const dsl::RuleSet> rules_of(const std::string& text) {
  dsl::SourceSet sources;
  auto checked = dsl::check_sources(sources, {sources.add("rules.proviso", text)});
  REQUIRE(checked.value);
  return std::make_shared<const dsl::RuleSet>(std::move(*checked.value));
}

}  // namespace

TEST_CASE("a feature is measured on the model while nobody waits", "[model]") {
  const test::TemporaryFolder folder;
  std::istringstream in;
  std::ostringstream out, err;
  Invocation invocation{in, out, err, {}, {}};
  invocation.options.cache = folder / "cache";
  const auto files = open_model(kModel);
  Calibrations calibrations(invocation, *files);
  const auto finally = [&](const std::shared_ptr<const dsl::RuleSet>& rules, const std::string& feature) {
    CHECK_THAT(calibrations.told(rules, feature), Contains("being measured"));
    std::string told;
    for (int i = 0; i < 6000; ++i) {
      told = calibrations.told(rules, feature);
      if (told.find("being measured") == std::string::npos) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return told;
  };
  const auto rules = rules_of(R"(
feature mood = contrast(["I am glad", "I am happy"], ["I am sad", "I am sorry"]) at resid_post[6]
feature same = contrast(["I see it"], ["You see it"]) at embed token -1
)");
  CHECK_THAT(finally(rules, "mood"), Contains("0 stands for d·x = ") && Contains("built on 4 prompts"));
  CHECK_THAT(finally(rules, "same"), Contains("finds no difference"));
  CHECK(calibrations.told(rules, "none") == "");
  const auto changed = rules_of("feature mood = unembed(\" glad\") at resid_post[6]\n");
  CHECK_THAT(finally(changed, "mood"), Contains("0 stands for d·x = 0, and 1 for 1"));
}

}  // namespace proviso::cli

#pragma once

// The commands that run a model, on a tiny one of random weights whose tokens are bytes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/random_model.hpp"
#include "tests/support/schema.hpp"
#include "tests/unit/cli/run_program.hpp"

namespace proviso {

inline const std::string kFeature = R"(
feature f = contrast(["The cat sat", "A dog ran!"], ["One two ten", "Six or seven?"]) at mlp_out[0]
)";

/// Every report that an audit prints or writes is one that the schema allows.
inline void hold_to_schema(const std::vector<std::string>& arguments, const Ran& ran) {
  const auto after = [&](const char* option) {
    const auto at = std::ranges::find(arguments, option);
    return at == arguments.end() ? std::string() : *(at + 1);
  };
  const std::string file = after("-o");
  if (!file.empty() && std::filesystem::exists(file)) {
    CHECK_THAT(tests::schema_violations(test::read_bytes(file)), Catch::Equals(""));
  } else if (file.empty() && !ran.out.empty() && after("--output") != "text") {
    CHECK_THAT(tests::schema_violations(ran.out), Catch::Equals(""));
  }
}

/// A model in a folder, and a rule file beside it.
struct Case {
  explicit Case(const std::string& rules, const nlohmann::json& json = test::tiny_llama_json())
      : random(json), model(random.folder.path().string()), file(folder / "r.proviso") {
    test::write_bytes(file, kFeature + rules);
  }
  Ran run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--model", model, "--cache", folder / "cache"});
    auto ran = run_program(arguments);
    if (arguments[0] == "audit") hold_to_schema(arguments, ran);
    return ran;
  }

  test::RandomModel random;
  test::TemporaryFolder folder;
  std::string model, file;
};

}  // namespace proviso

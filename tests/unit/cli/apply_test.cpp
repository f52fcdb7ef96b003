#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/unit/cli/case.hpp"

namespace proviso {
namespace {

namespace fs = std::filesystem;

const std::string kGentle = R"(
edit gentle { remove f at attn_out[1] using project(strength: 1%)  expect kl(["The hat fell"]) <= 0.01 }
)";
const std::string kRough = "edit rough { remove f at mlp_out[*] using project }\n";

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("an edit that holds alone and not in the final model stops apply, and what broke it is named") {
  const auto refused = [](const std::string& rules, const std::string& said,
                          const std::vector<std::string>& options = {}) {
    const Case tiny(rules);
    std::vector<std::string> arguments = {"apply", tiny.file, "-o", tiny.folder / "edited"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const auto ran = tiny.run(arguments);
    INFO(ran.err);
    CHECK(ran.code == 1);
    CHECK(contains(ran.err, "edit `gentle` holds by itself and not in the final model: " + said));
    CHECK(contains(ran.err, "nothing was written"));
    CHECK_FALSE(fs::exists(tiny.folder / "edited"));
  };
  refused(kGentle + kRough, "edit `rough` broke it");
  refused(kRough + kGentle, "on what `rough` left it does not hold");
  refused(kGentle + "rule louder { steer f by 5 at mlp_out[1] }\n", "the rules in force broke it: `louder`");
  refused("edit gentle { remove f at attn_out[1] using project(strength: 1%)  expect kl([\"The hat\"]) <= 1e-6 }\n",
          "it is lost where tensors are written as BF16", {"--dtype", "bfloat16"});
}

TEST_CASE("an edit of which the written type keeps nothing is refused, whatever it expects") {
  const Case tiny(
      "edit faint { remove f at attn_out[1] using project(strength: 0.0001%)  expect kl([\"The hat\"]) <= 1 }\n");
  const auto ran = tiny.run({"apply", tiny.file, "-o", tiny.folder / "edited", "--dtype", "bfloat16", "--force"});
  CHECK(ran.code == 2);
  CHECK(contains(ran.err, "faint is gone once its tensors are written as BF16"));
  CHECK_FALSE(fs::exists(tiny.folder / "edited"));
}

TEST_CASE("dropping an edit takes back what was measured with it") {
  const Case tiny(kGentle + kRough);
  const std::string edited = tiny.folder / "edited", left = tiny.folder / "left";
  REQUIRE(tiny.run({"apply", tiny.file, "--force", "-o", edited}).code == 0);
  REQUIRE(run_program({"ledger", "drop", edited, "rough", "-o", left}).code == 0);
  const auto shown = run_program({"ledger", "show", left}).out;
  CHECK_FALSE(contains(shown, "missed"));
  CHECK(contains(shown, "last measured with `rough`, since dropped"));
}

TEST_CASE("what was forced says so in its ledger") {
  const Case tiny(kGentle + kRough);
  const std::string edited = tiny.folder / "edited";
  const auto forced = tiny.run({"apply", tiny.file, "--force", "-o", edited});
  INFO(forced.err);
  REQUIRE(forced.code == 0);
  CHECK(contains(forced.err, "edit `rough` broke it"));
  const auto shown = run_program({"ledger", "show", edited, "--output", "json"});
  const auto expectation = nlohmann::json::parse(shown.out)["edits"][0]["expectations"][0];
  CHECK(expectation["status"] == "pass");
  CHECK(expectation["final_status"] == "fail");
  CHECK(expectation["final_value"].get<double>() > expectation["value"].get<double>());
  CHECK(contains(run_program({"ledger", "show", edited}).out, "missed: kl("));

  const Case holding(kGentle);
  REQUIRE(holding.run({"apply", holding.file, "-o", holding.folder / "edited"}).code == 0);
  CHECK_FALSE(contains(run_program({"ledger", "show", holding.folder / "edited"}).out, "forced"));
}

TEST_CASE("a check on the final model leaves other rules' hooks and edits aside") {
  // The rule never acts on what the edit is measured on, which makes a check under it vacuous, not this.
  const Case tiny(kGentle + "edit other { remove f at attn_out[0] using project(strength: 1%) }\n" +
                  "rule rare { suppress f when token is \"#\" }\n");
  const auto ran = tiny.run({"apply", tiny.file, "--hooks", "keep", "-o", tiny.folder / "edited"});
  INFO(ran.err);
  CHECK(ran.code == 0);
}

TEST_CASE("the changes alone are written as an adapter") {
  const Case tiny(kGentle + kRough);
  const std::string adapter = tiny.folder / "adapter";
  const auto ran = tiny.run({"apply", tiny.file, "--force", "--as", "adapter", "-o", adapter});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const auto config = nlohmann::json::parse(test::read_bytes(adapter + "/adapter_config.json"));
  CHECK(config["base_model_name_or_path"] == tiny.model);
  CHECK(config["target_modules"].size() == 3);
  CHECK(fs::exists(adapter + "/adapter_model.safetensors"));
  CHECK(run_program({"ledger", "verify", adapter, "--model", tiny.model}).code == 0);
  CHECK(run_program({"revert", adapter, "-o", tiny.folder / "source"}).code == 2);

  const Case unfit("rule steered { steer f by 1 at mlp_out[0], embed }\n");
  const auto refused = unfit.run({"apply", unfit.file, "--as", "adapter", "-o", unfit.folder / "adapter"});
  CHECK(refused.code == 2);
  CHECK(contains(refused.err, "`steered` changes model.layers.0.mlp.down_proj.bias, a bias"));
  CHECK(contains(refused.err, "`steered` changes model.embed_tokens.weight, the embedding"));
  CHECK_FALSE(fs::exists(unfit.folder / "adapter"));
}

TEST_CASE("options that do not go together are refused before anything is loaded") {
  const Case tiny(kGentle);
  const auto refused = [&](const std::vector<std::string>& options, const std::string& part) {
    std::vector<std::string> arguments = {"apply", tiny.file};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const auto ran = tiny.run(arguments);
    INFO(ran.err);
    CHECK(ran.code == 2);
    CHECK(contains(ran.err, part));
    CHECK(contains(ran.err, "help: "));
  };
  refused({"-o", tiny.folder / "x.gguf"}, "is written of a model that came as one");
  refused({"-o", tiny.folder / "x.gguf", "--as", "adapter"}, "an adapter is a folder");
  refused({"-o", tiny.folder / "x", "--as", "adapter", "--dtype", "float16"}, "holds its factors in float32");
  refused({"-o", tiny.folder / "x", "--as", "adapter", "--hooks", "keep"}, "an adapter is none");
  refused({"-o", tiny.folder / "x", "--dtype", "q8_0"}, "is a type of GGUF files");
}

TEST_CASE("alphaedit on a model that was edited before spares the facts in its ledger") {
  const std::string using_alphaedit =
      "using alphaedit(layers: 0, steps: 2, prefixes: 0, null_threshold: 1000, text: \"text.txt\") }\n";
  const Case tiny("edit a { fact \"cat\" in \"The {} sat on\" to \"b\"  fact \"hat\" in \"The {} fell on\" to \"c\" " +
                  using_alphaedit);
  const std::string text = "The cat sat on the mat and looked.\nA dog ran by, and was gone.\n";
  test::write_bytes(tiny.folder / "text.txt", text);
  const std::string edited = tiny.folder / "edited", twice = tiny.folder / "twice",
                    rules = tiny.folder / "second.proviso";
  const auto first = tiny.run({"apply", tiny.file, "-o", edited});
  INFO(first.err);
  REQUIRE(first.code == 0);
  test::write_bytes(rules, "edit b { fact \"dog\" in \"A {} ran to\" to \"d\" " + using_alphaedit);
  const auto spared = [&](const std::string& of) {
    const auto ledger = nlohmann::json::parse(test::read_bytes(of + "/proviso/ledger.json"));
    return ledger.at("edits").at(0).at("certificates").at(0).at("parameters").at("earlier_facts").get<std::string>();
  };
  CHECK(spared(edited) == "0");
  const auto second = run_program({"apply", rules, "--model", edited, "-o", twice, "--cache", tiny.folder / "cache"});
  INFO(second.err);
  REQUIRE(second.code == 0);
  CHECK(spared(twice) == "2");
  // The third knows of all three.
  const auto third = run_program(
      {"apply", rules, "--model", twice, "-o", tiny.folder / "thrice", "--cache", tiny.folder / "cache", "--force"});
  INFO(third.err);
  CHECK((third.code != 0 || spared(tiny.folder / "thrice") == "3"));
}

}  // namespace proviso

// `proviso trace` on a tiny model of random weights whose tokens are bytes.

#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/random_model.hpp"
#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/cli/run_program.hpp"

namespace proviso {
namespace {

const std::string kCircuits = R"(
circuit small { clean "The cat" corrupt "The hog"  measure logit_diff("a", "b")  using eap  keep 20 edges }
circuit large { clean "A dog" corrupt "I hug"  measure probability("a")  using exact(budget: 200)  keep 50% edges }
)";

struct Desk {
  explicit Desk(const std::string& rules) { test::write_bytes(file, rules); }
  Ran run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {file, "--model", random.folder.path().string(), "--cache", folder / "cache"});
    return run_program(arguments);
  }
  test::RandomModel random;
  test::TemporaryFolder folder;
  std::string file = folder / "r.proviso";
};

}  // namespace

TEST_CASE("trace finds the files' circuits, shows them and draws them") {
  const Desk desk(kCircuits);
  const auto shown = desk.run({"trace", "--edges", "2"});
  INFO(shown.err);
  REQUIRE(shown.code == 0);
  CHECK(shown.out.find("small") != std::string::npos);
  CHECK(shown.out.find("large") != std::string::npos);

  const auto one = desk.run({"trace", "--only", "large", "--output", "json"});
  REQUIRE(one.code == 0);
  const auto circuits = nlohmann::json::parse(one.out)["circuits"];
  REQUIRE(circuits.size() == 1);
  CHECK(circuits[0]["method"] == "exact");
  CHECK(circuits[0]["parameters"]["budget"] == "200");
  CHECK(circuits[0]["faithfulness"]["value"].is_number());

  const auto drawn = desk.run({"trace", "-o", desk.folder / "c.dot"});
  REQUIRE(drawn.code == 0);
  const auto dot = test::read_bytes(desk.folder / "c.dot");
  CHECK(dot.find("digraph \"small\" {") != std::string::npos);
  CHECK(dot.find("digraph \"large\" {") != std::string::npos);

  const auto explained = desk.run({"explain", "--output", "json"});
  REQUIRE(explained.code == 0);
  const auto plan = nlohmann::json::parse(explained.out)["circuits"];
  REQUIRE(plan.size() == 2);
  CHECK(plan[0]["edges"] == 20);
  CHECK(plan[1]["method"] == "exact");
}

TEST_CASE("trace sweeps every layer and position of a circuit's pairs, and draws pages") {
  const Desk desk(kCircuits);
  const auto swept = desk.run({"trace", "--only", "small", "--sweep", "resid_pre,z", "--output", "json"});
  INFO(swept.err);
  REQUIRE(swept.code == 0);
  const auto sweeps = nlohmann::json::parse(swept.out)["sweeps"];
  REQUIRE(sweeps.size() == 2);
  CHECK(sweeps[0]["recovered"].size() == 2);
  CHECK(sweeps[0]["recovered"][0].size() == sweeps[0]["tokens"].size());
  CHECK(sweeps[1]["recovered"][0].size() == 4);
  CHECK(sweeps[0]["first_difference"].get<int>() > 0);
  CHECK(sweeps[0]["recovered"][0][0] == 0);

  const auto screened = desk.run({"trace", "--sweep", "resid_pre", "--screen", "-o", desk.folder / "s.html"});
  INFO(screened.err);
  REQUIRE(screened.code == 0);
  CHECK(screened.out.find("bfloat16") != std::string::npos);
  CHECK(test::read_bytes(desk.folder / "s.html").find("class=\"heat\"") != std::string::npos);
  const auto drawn = desk.run({"trace", "-o", desk.folder / "c.html", "--minimality", "--stability"});
  INFO(drawn.err);
  REQUIRE(drawn.code == 0);
  CHECK(test::read_bytes(desk.folder / "c.html").find("<svg") != std::string::npos);
  CHECK(desk.run({"trace", "--sweep", "pattern"}).code == 2);
  CHECK(desk.run({"trace", "--sweep", "z", "-o", desk.folder / "s.dot"}).code == 2);
}

TEST_CASE("trace draws latents, and explain says what they cost") {
  const Desk desk(R"(
circuit c { clean "The cat" corrupt "The hog"  measure logit_diff("a", "b")  using eap(sae: "sae")  keep 5 nodes }
)");
  test::write_tiny_autoencoder(desk.folder / "sae", test::tiny_card());
  const auto shown = desk.run({"trace"});
  INFO(shown.err);
  REQUIRE(shown.code == 0);
  CHECK(shown.out.find("5 of 41 latents and error terms") != std::string::npos);
  CHECK(shown.out.find("resid_post[0] ") != std::string::npos);
  REQUIRE(desk.run({"trace", "-o", desk.folder / "c.html"}).code == 0);
  CHECK(test::read_bytes(desk.folder / "c.html").find("Arrows drawn") != std::string::npos);
  const auto explained = desk.run({"explain"});
  INFO(explained.out);
  CHECK(explained.out.find("5 of 41 nodes") != std::string::npos);
  CHECK(explained.out.find("40 latents and an error term at resid_post[0]") != std::string::npos);
}

TEST_CASE("trace refuses what it cannot do before the model is loaded") {
  const Desk desk(kCircuits);
  CHECK(desk.run({"trace", "-o", desk.folder / "c.png"}).code == 2);
  CHECK_FALSE(std::filesystem::exists(desk.folder / "c.png"));
  const auto misspelt = desk.run({"trace", "--only", "smal"});
  CHECK(misspelt.code == 2);
  CHECK(misspelt.err.find("did you mean `small`?") != std::string::npos);
  CHECK(Desk("prompts p = [\"The cat\"]").run({"trace"}).err.find("declare no circuit") != std::string::npos);
}

}  // namespace proviso

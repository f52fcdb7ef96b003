// `proviso sae …` on a tiny model of random weights whose tokens are bytes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/random_model.hpp"
#include "tests/support/small_disk.hpp"
#include "tests/unit/cli/run_program.hpp"

namespace proviso {
namespace {

struct Bench {
  Bench() {
    std::string text;
    for (int i = 0; i < 40; ++i) text += "The cat number " + std::to_string(i * 37 % 101) + " sat on a mat. ";
    test::write_bytes(folder / "text.txt", text);
    test::write_bytes(folder / "yes.txt", "The cat sat\nA cat ran\n");
    test::write_bytes(folder / "no.txt", "1 2 3 4\n77 88\n");
  }
  Ran run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "sae");
    arguments.insert(arguments.end(), {"--model", random.folder.path().string(), "--text", folder / "text.txt",
                                       "--context", "32", "--output", "json"});
    return run_program(arguments);
  }
  Ran train(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"train",    "--at",  "resid_post[0]", "--latents", "48", "--k",         "4",
                                          "--tokens", "40000", "--batch",       "128",       "-o", folder / "sae"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }

  test::RandomModel random;
  test::TemporaryFolder folder;
};

}  // namespace

TEST_CASE("an autoencoder is trained, measured, read and used in a rule") {
  const Bench bench;
  const auto trained = bench.train({"--batch-topk"});
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  CHECK_FALSE(std::filesystem::exists(bench.folder / "sae.checkpoint"));
  const auto cfg = nlohmann::json::parse(test::read_bytes(bench.folder / "sae/cfg.json"));
  CHECK(cfg["architecture"] == "jumprelu");
  CHECK(cfg["metadata"]["hook_name"] == "blocks.0.hook_resid_post");

  const auto measured = bench.run({"eval", bench.folder / "sae"});
  INFO(measured.err);
  REQUIRE(measured.code == 0);
  const auto quality = nlohmann::json::parse(measured.out);
  CHECK(quality["variance_explained"] > 0.5);
  CHECK(quality["l0"] > 1);
  CHECK(quality["loss_recovered"].is_number());
  CHECK(quality["dead"] < 48);

  const auto read = bench.run(
      {"top", bench.folder / "sae", "--positive", bench.folder / "yes.txt", "--negative", bench.folder / "no.txt"});
  INFO(read.err);
  REQUIRE(read.code == 0);
  const auto latents = nlohmann::json::parse(read.out)["latents"];
  CHECK(latents.size() == 10);
  CHECK(latents[0]["auroc"] >= latents[9]["auroc"]);

  test::write_bytes(bench.folder / "r.proviso",
                    "prompts p = [\"The cat sat\", \"A mat\"]\nfeature f = latent(" + latents[0]["latent"].dump() +
                        ", sae: \"sae\")\nrule r { suppress f when f > 0 }\n"
                        "check c { under rule r  expect loss_recovered(\"sae\", p) <= 1000% }\n");
  const auto audited = run_program({"audit", bench.folder / "r.proviso", "--model", bench.random.folder.path().string(),
                                    "--output", "json", "--cache", bench.folder / "cache"});
  INFO(audited.err << audited.out);
  CHECK(audited.code <= 1);
  CHECK(nlohmann::json::parse(audited.out)["features"][0]["constructor"] == "latent");
}

TEST_CASE("what training and measuring cannot do is said before anything is computed") {
  const Bench bench;
  const auto says = [](const Ran& ran, const std::string& what) {
    CHECK(ran.code == 2);
    CHECK_THAT(ran.err, Catch::Contains(what));
  };
  says(bench.train({"--resume"}), "there is no ");
  test::write_bytes(bench.folder / "sae.checkpoint", "x");
  says(bench.train(), "is of a training that was stopped");
  says(bench.train({"--resume"}), "is cut short or no safetensors file");
  std::filesystem::remove(bench.folder / "sae.checkpoint");
  std::filesystem::create_directory(bench.folder / "sae");
  says(bench.train(), "sae");
  says(bench.run({"eval", bench.folder / "sae"}), "cfg.json");
  says(bench.run({"train", "--at", "logits", "--latents", "4", "--k", "2", "-o", bench.folder / "b"}),
       "SAELens' format has no name for this site");
  says(bench.run({"train", "--at", "resid_post[7]", "--latents", "4", "--k", "2", "-o", bench.folder / "b"}),
       "2 layers");
  says(bench.run({"train", "--at", "resid_post[0]", "--latents", "4", "--k", "5", "-o", bench.folder / "b"}),
       "of N latents at most N fire");
  says(bench.run({"top", bench.folder / "sae", "--positive", bench.folder / "yes.txt"}), "go together");
}

TEST_CASE("single latents are judged on labelled prompts, with sample sizes and intervals") {
  const Bench bench;
  REQUIRE(bench.train().code == 0);
  const auto set = [&](const std::string& name, const std::string& start) {
    std::string text;
    for (const char* end : {"abc", "xyz", "mat", "dog", "sun", "hat", "ink", "oak"}) text += start + end + "\n";
    test::write_bytes(bench.folder / name, text);
    return bench.folder / name;
  };
  const auto a = set("a.txt", "The cat "), b = set("b.txt", "1 2 3 4 "), c = set("c.txt", "zz qq "),
             d = set("d.txt", "99 mm ");
  const auto measured = bench.run({"eval", bench.folder / "sae", "--labelled", a, "--labelled", b, "--labelled", c,
                                   "--spurious", a, b, c, d, "--latents", "4", "--cache", bench.folder / "cache"});
  INFO(measured.err);
  REQUIRE(measured.code == 0);
  const auto measures = nlohmann::json::parse(measured.out)["latent_measures"];
  REQUIRE(measures.size() == 8);  // two for each of three classes, tpp and scr
  CHECK(measures[0]["metric"] == "sparse_probing");
  CHECK(measures[0]["class"] == a);
  CHECK(measures[0]["n"] == 24);
  CHECK(measures[0]["interval"].size() == 2);
  CHECK(measures[1]["metric"] == "absorption");
  CHECK(measures[6]["metric"] == "tpp");
  CHECK(measures[7]["metric"] == "scr");

  // A check says the same of the same prompts.
  test::write_bytes(bench.folder / "r.proviso",
                    "prompts a = from \"a.txt\"\nprompts b = from \"b.txt\"\n"
                    "check c { expect sparse_probing(\"sae\", a, b, k: 4) >= 50% }\n");
  const auto audited = run_program({"audit", bench.folder / "r.proviso", "--model", bench.random.folder.path().string(),
                                    "--output", "json", "--cache", bench.folder / "cache"});
  INFO(audited.err << audited.out);
  const auto of_check = nlohmann::json::parse(audited.out)["checks"][0]["expectations"][0];
  const auto two = bench.run({"eval", bench.folder / "sae", "--labelled", a, "--labelled", b, "--latents", "4",
                              "--cache", bench.folder / "cache"});
  const auto of_eval = nlohmann::json::parse(two.out)["latent_measures"];
  REQUIRE(of_eval.size() == 2);
  CHECK(of_eval[0]["value"] == of_check["value"]);
  CHECK(of_eval[0]["n"] == 16);

  const auto alone = bench.run({"eval", bench.folder / "sae", "--labelled", a});
  CHECK(alone.code == 2);
  CHECK_THAT(alone.err, Catch::Contains("name two files of prompts or more"));
  const auto twice = bench.run({"eval", bench.folder / "sae", "--labelled", a, "--labelled", bench.folder / "a.txt"});
  CHECK(twice.code == 2);
}

TEST_CASE("a full disk ends training with nothing half-written, and training can begin again") {
  const Bench bench;
  {
    const test::SmallDisk full(4096);
    const auto stopped = bench.train({"--checkpoint-every", "0"});
    CHECK(stopped.code == 3);
    CHECK_THAT(stopped.err, Catch::Contains("sae.checkpoint"));
  }
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(bench.folder.path()))
    left.push_back(entry.path().filename());
  std::sort(left.begin(), left.end());
  CHECK(left == std::vector<std::string>{"no.txt", "text.txt", "yes.txt"});
  CHECK(bench.train().code == 0);
}

TEST_CASE("a text of another encoding, or of too few tokens, is refused by its name") {
  const Bench bench;
  test::write_bytes(bench.folder / "text.txt", "caf\xe9 au lait");
  const auto latin = bench.train();
  CHECK(latin.code == 2);
  CHECK_THAT(latin.err, Catch::Contains("text.txt"));
  CHECK_THAT(latin.err, Catch::Contains("UTF-8"));
  test::write_bytes(bench.folder / "text.txt", "short");
  const auto few = bench.train();
  CHECK(few.code == 2);
  CHECK_THAT(few.err, Catch::Contains("a batch takes 128"));
}

}  // namespace proviso

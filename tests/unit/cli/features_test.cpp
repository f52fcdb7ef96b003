// `proviso features …` on a tiny model of random weights whose tokens are bytes.

#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/cli/run_program.hpp"

namespace proviso {
namespace {

using nlohmann::json;

struct Bench {
  Bench() {
    std::string words, numbers;
    for (const char* word : {"cat", "dog", "hat", "mat", "rat", "bat", "sun", "sea", "sky", "tea", "pen", "cup"}) {
      words += std::string("The ") + word + " sat\n";
      numbers += std::string(word) + " 12" + std::to_string(numbers.size()) + "\n";
    }
    test::write_bytes(folder / "words.txt", words);
    test::write_bytes(folder / "numbers.txt", numbers);
    test::write_tiny_autoencoder(folder / "sae", test::tiny_card());
  }
  Ran run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "features");
    arguments.insert(arguments.end(), {"--model", random.folder.path().string(), "--cache", folder / "cache"});
    return run_program(arguments);
  }
  Ran find(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {
        "find", "--positive", folder / "words.txt", "--negative", folder / "numbers.txt", "--controls", "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }

  test::RandomModel random;
  test::TemporaryFolder folder;
};

std::size_t tokens_before_peak(const json& context) { return context["peak"].get<std::size_t>(); }

}  // namespace

TEST_CASE("features are found on some prompts and judged on others, each kind with its numbers") {
  const Bench bench;
  const auto ran = bench.find({"--sae", bench.folder / "sae", "--output", "json", "--top", "2", "--measure",
                               "logit_diff(\"a\", \"b\", after: positive)"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const auto found = json::parse(ran.out);
  CHECK(found["positive"]["build"] == 5);
  CHECK(found["positive"]["choose"] == 3);
  CHECK(found["positive"]["judge"] == 4);
  CHECK(found["searched"] == json{{"latent", 40}, {"neuron", 48}, {"head", 8}, {"contrast", 2}, {"probe", 2}});
  CHECK(found["confidence"]["each"].get<double>() == Approx(1 - 0.05 / 10));
  std::multiset<std::string> kinds;
  double before = 2;
  std::string kind;
  for (const auto& feature : found["features"]) {
    INFO(feature.dump(1));
    const double chosen = feature["chosen_by"]["auroc"];
    if (feature["kind"] == kind) CHECK(chosen <= before);
    before = chosen;
    kind = feature["kind"];
    kinds.insert(kind);
    CHECK(feature["auroc"]["n"] == 8);
    const double area = feature["auroc"]["value"];
    CHECK((area >= 0 && area <= 1));
    CHECK((feature["effect"].contains("why") || feature["effect"]["value"].is_number()));
    CHECK(feature["effect"]["control"]["n"] == 3);
    std::size_t shown = 0;
    for (const auto& side : {"positive", "negative"})
      for (const auto& count : feature["histogram"][side]) shown += count.get<std::size_t>();
    CHECK(shown == 8);
    CHECK(feature["raises"].size() == 8);
    CHECK(feature["neighbours"].size() == (kind == "latent" ? 5 : 0));
    for (const auto& context : feature["contexts"]) {
      CHECK(context["activations"][tokens_before_peak(context)] == context["activation"]);
      CHECK(context["tokens"].size() == context["activations"].size());
    }
  }
  for (const auto kind_shown : {"latent", "neuron", "head", "contrast", "probe"}) CHECK(kinds.count(kind_shown) == 2);
  // A last letter is told from a last digit by the embedding of either.
  CHECK(found["features"].back()["auroc"]["value"] == 1);

  // What is printed to be pasted is a rule file that holds on the model.
  test::write_bytes(bench.folder / "pasted.proviso", found["declarations"].get<std::string>());
  const auto checked = run_program(
      {"check", bench.folder / "pasted.proviso", "--model", bench.random.folder.path().string(), "--strict"});
  INFO(found["declarations"].get<std::string>() << checked.out << checked.err);
  CHECK(checked.code == 0);
}

TEST_CASE("the same seed finds the same, another cuts the prompts otherwise") {
  const Bench bench;
  const std::vector<std::string> some = {"--output", "yaml", "--at", "resid_post[1]", "--top", "1"};
  const auto with_seed = [&](const char* seed) {
    auto arguments = some;
    arguments.insert(arguments.end(), {"--seed", seed});
    return bench.find(arguments).out;
  };
  const auto first = with_seed("1");
  CHECK_FALSE(first.empty());
  CHECK(first == with_seed("1"));
  CHECK(first != with_seed("2"));
}

TEST_CASE("what was found is told as text and as a page") {
  const Bench bench;
  test::write_bytes(bench.folder / "text.txt", "The cat sat on a mat.\nA dog ran 100 miles & more.\n");
  const auto text =
      bench.find({"--top", "1", "--token", "all", "--text", bench.folder / "text.txt", "--at", "mlp_post[1]"});
  INFO(text.err);
  REQUIRE(text.code == 0);
  CHECK_THAT(text.out, Catch::Contains("24 neurons") && Catch::Contains("DeLong intervals") &&
                           Catch::Contains("feature contrast_resid_post_1 = contrast(positive, negative) at "
                                           "resid_post[1] token all"));
  const auto page = bench.find({"--top", "1", "--at", "mlp_post[1]", "-o", bench.folder / "p.html"});
  INFO(page.err);
  REQUIRE(page.code == 0);
  const auto html = test::read_bytes(bench.folder / "p.html");
  CHECK_THAT(html, Catch::Contains("<title>Features of ") && Catch::Contains("class=\"shade-") &&
                       Catch::Contains("id=\"feature-neuron_1_"));
  const auto picture = bench.find({"--top", "1", "--at", "mlp_post[1]", "-o", bench.folder / "p.png"});
  CHECK(picture.code == 2);
  CHECK_THAT(picture.err, Catch::Contains("p.png") && Catch::Contains(".html"));
}

TEST_CASE("what cannot be built is left out by name, and the rest is searched") {
  const Bench bench;
  std::string words, numbers;
  for (int i = 10; i < 22; ++i) {
    words += "The cat sat " + std::to_string(i) + " times.\n";
    numbers += std::to_string(i) + " is a number.\n";
  }
  test::write_bytes(bench.folder / "words.txt", words);
  test::write_bytes(bench.folder / "numbers.txt", numbers);
  // All prompts end in the same token, so that their embeddings there do not differ.
  const auto ran = bench.find({"--at", "embed", "resid_post[1]", "--output", "json"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const auto found = json::parse(ran.out);
  REQUIRE(found["left_out"].size() == 2);
  CHECK(found["left_out"][0]["what"] == "contrast_embed");
  CHECK_THAT(found["left_out"][0]["why"].get<std::string>(), Catch::Contains("finds no difference"));
  REQUIRE(found["features"].size() == 2);
  CHECK(found["features"][0]["name"] == "contrast_resid_post_1");
  CHECK(found["features"][0]["measures"]["halves_cosine"].is_number());
}

TEST_CASE("what cannot be searched is said") {
  const Bench bench;
  const auto says = [](const Ran& ran, const std::string& what) {
    CHECK(ran.code == 2);
    CHECK_THAT(ran.err, Catch::Contains(what));
  };
  test::write_bytes(bench.folder / "few.txt", "one\ntwo\none\n");
  says(bench.run({"find", "--positive", bench.folder / "few.txt", "--negative", bench.folder / "numbers.txt"}),
       "holds 2 different prompts");
  says(bench.run({"find", "--positive", bench.folder / "words.txt", "--negative", bench.folder / "words.txt"}),
       "is on both sides");
  says(bench.find({"--measure", "logit_diff(\"a\", after: positive)"}), "error[");
  says(bench.find({"--at", "logits"}), "no feature is read at logits");
  says(bench.find({"--at", "resid_post[7]"}), "the last is 1");
  says(bench.find({"--sae", bench.folder / "none"}), "none");
  test::write_tiny_autoencoder(bench.folder / "deep",
                               test::tiny_card(runtime::Architecture::jumprelu, {dsl::SiteKind::resid_post, 9, -1}));
  says(bench.find({"--sae", bench.folder / "deep"}), "layer");
}

TEST_CASE("exported features read as those that they were built from") {
  const Bench bench;
  test::write_bytes(bench.folder / "rules.proviso", R"(
prompts words = from "words.txt"
prompts numbers = from "numbers.txt"
feature wordy "Words" = contrast(words, numbers) at resid_post[1] { tags ["a:b"] meta { owner "me" } }
feature probed = probe(words, numbers, zero: midpoint) at mlp_out[0] token all
feature raised = unembed("a") at final_norm
feature unit = neuron(3) at mlp_post[1]
feature written = contrast(words, numbers) at z[1] head 2
feature of_sae = latent(3, sae: "sae")
)");
  const auto ran = bench.run({"export", bench.folder / "rules.proviso", "-o", bench.folder / "catalogue"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  CHECK_THAT(ran.out, Catch::Contains("5 features: wordy probed raised unit written") &&
                          Catch::Contains("left out: of_sae: it is a latent"));
  const auto text = test::read_bytes(bench.folder / "catalogue/features.proviso");
  INFO(text);
  CHECK_THAT(text, Catch::Contains("declared \"contrast(words, numbers)\"") &&
                       Catch::Contains("built_on \"24 prompts\"") &&
                       Catch::Contains("source \"rules.proviso sha256 ") && Catch::Contains("words.txt sha256 ") &&
                       Catch::Contains("model \"") && Catch::Contains("owner \"me\"") &&
                       Catch::Contains("program \"proviso "));
  CHECK(run_program({"fmt", "--check", bench.folder / "catalogue/features.proviso"}).code == 0);

  std::string both =
      "use \"rules.proviso\" as built\nuse \"catalogue/features.proviso\" as kept\n"
      "prompts other = [\"A pig ran\", \"Six 66\", \"No one\"]\n";
  for (const char* name : {"wordy", "probed", "raised", "unit", "written"}) {
    for (const char* of : {"built.", "kept."}) {
      const std::string feature = std::string(of) + name;
      both += "check " + std::string(name) + (of[0] == 'b' ? "_built" : "_kept") + " { expect mean(" + feature +
              ", on: other) >= 0  expect max(" + feature + ", on: other) >= 0 }\n";
    }
  }
  test::write_bytes(bench.folder / "both.proviso", both);
  const auto audited =
      run_program({"audit", bench.folder / "both.proviso", "--model", bench.random.folder.path().string(), "--output",
                   "json", "--cache", bench.folder / "cache"});
  INFO(audited.err);
  REQUIRE(audited.code <= 1);
  const auto checks = json::parse(audited.out)["checks"];
  REQUIRE(checks.size() == 10);
  for (std::size_t i = 0; i < checks.size(); i += 2) {
    for (std::size_t of : {0, 1}) {
      INFO(checks[i]["name"]);
      const double built = checks[i]["expectations"][of]["value"], kept = checks[i + 1]["expectations"][of]["value"];
      CHECK(kept == Approx(built).epsilon(1e-5).margin(1e-6));
      CHECK(built != 0);
    }
  }
  // A catalogue of a catalogue tells where its features came from at first.
  REQUIRE(bench.run({"export", bench.folder / "catalogue/features.proviso", "-o", bench.folder / "again"}).code == 0);
  CHECK_THAT(test::read_bytes(bench.folder / "again/features.proviso"),
             Catch::Contains("declared \"contrast(words, numbers)\""));
  // Nothing is overwritten, and nothing written where there is nothing to write.
  CHECK(bench.run({"export", bench.folder / "rules.proviso", "-o", bench.folder / "catalogue"}).code == 2);
  test::write_bytes(bench.folder / "twin.proviso", "feature unit = neuron(4) at mlp_post[0]\n");
  const auto twins = bench.run(
      {"export", bench.folder / "rules.proviso", bench.folder / "twin.proviso", "-o", bench.folder / "twins"});
  CHECK(twins.code == 2);
  CHECK_THAT(twins.err, Catch::Contains("two of the files declare a feature `unit`"));
  test::write_bytes(bench.folder / "latents.proviso", "feature of_sae = latent(3, sae: \"sae\")\n");
  const auto latents = bench.run({"export", bench.folder / "latents.proviso", "-o", bench.folder / "none"});
  CHECK(latents.code == 2);
  CHECK_FALSE(std::filesystem::exists(bench.folder / "none"));
}

}  // namespace proviso

// The commands that run a model, on a tiny one of random weights whose tokens are bytes.

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "runtime/formats/safetensors.hpp"
#include "tests/support/ptest.hpp"
#include "tests/unit/cli/case.hpp"

namespace proviso {

TEST_CASE("run prints what comes next and what rules did") {
  const Case tiny("rule r { steer f by 2 at resid_post[0] when f > -1000 }\n");
  const auto ran = tiny.run(
      {"run", "--rules", tiny.file, "--prompt", "The hat", "--max-tokens", "0", "--top", "3", "--output", "json"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const auto said = nlohmann::ordered_json::parse(ran.out);
  std::vector<std::string> keys;
  for (const auto& [key, value] : said.items()) keys.push_back(key);
  CHECK(keys == std::vector<std::string>{"model", "prompt", "tokens", "next", "generated", "activity"});
  CHECK(said["tokens"] == nlohmann::json({'T', 'h', 'e', ' ', 'h', 'a', 't'}));
  CHECK(said["generated"].get<std::string>().empty());
  REQUIRE(said["next"].size() == 3);
  CHECK(said["next"][0]["probability"].get<double>() ==
        Approx(std::exp(said["next"][0]["log_probability"].get<double>())).epsilon(1e-7));
  CHECK(said["next"][0]["logit"].get<double>() >= said["next"][1]["logit"].get<double>());
  CHECK(std::regex_search(ran.out, std::regex(R"("probability": 0\.0*[1-9][0-9]{6,})")));
  CHECK(said["activity"][0]["rule"] == "r");
  CHECK(said["activity"][0]["feature"] == "f");
  CHECK(said["activity"][0]["positions"] == 6);
  CHECK(said["activity"][0]["active"] == 6);

  const auto by_ids = tiny.run({"run", "--rules", tiny.file, "--ids", "84,104,101,32,104,97,116", "--max-tokens", "0",
                                "--top", "3", "--output", "json"});
  CHECK(by_ids.out == ran.out);
  const auto plain = tiny.run({"run", "--prompt", "The hat", "--max-tokens", "0", "--top", "3", "--output", "json"});
  CHECK(nlohmann::json::parse(plain.out)["activity"].empty());
  CHECK(nlohmann::json::parse(plain.out)["next"] != said["next"]);

  // Bytes that are no UTF-8 by themselves still give a document that can be read.
  const auto broken = tiny.run({"run", "--ids", "255,84,200", "--max-tokens", "2", "--output", "json"});
  CHECK(broken.code == 0);
  CHECK(nlohmann::json::parse(broken.out)["tokens"] == nlohmann::json({255, 84, 200}));
  CHECK(tiny.run({"run", "--ids", "257", "--max-tokens", "0"}).code == 2);
  CHECK(tiny.run({"run", "--max-tokens", "0"}).code == 2);

  const auto generated = tiny.run({"run", "--prompt", "The hat", "--max-tokens", "5", "--output", "json"});
  CHECK(generated.code == 0);
  CHECK(nlohmann::json::parse(generated.out)["next"].size() == 10);
}

TEST_CASE("an audit is the same to the byte, and its exit code tells its verdict") {
  const Case tiny(R"(
rule r { steer f by 2 when f > 0  fires on ["The cat sat"] }
check passes { under rule r  expect perplexity(["The hat fell", "A dog sat"]) <= 1000000 }
check replies { expect rate(["The hat", "A dog"], generates: /./, tokens: 4, samples: 2, temperature: 1) >= 0.1% }
check causes { expect effect(steer f by 3, on: logit_diff("a", "b", after: ["The hat", "A dog"]), control: 4) > -1000 }
)");
  const auto first = tiny.run({"audit", tiny.file, "--reproducible", "--as-of", "2027-01-01"});
  INFO(first.out << first.err);
  REQUIRE(first.code == 0);
  CHECK(first.out.find("verdict: pass") != std::string::npos);
  CHECK(first.out.find("sha256: ") != std::string::npos);
  const auto second = tiny.run({"audit", tiny.file, "--reproducible", "--as-of", "2027-01-01"});
  CHECK(second.out == first.out);
  CHECK(tiny.run({"test", tiny.file}).code == 0);

  const Case failing("check fails { severity minor  expect perplexity([\"The hat fell\"]) <= 1 }\n");
  CHECK(failing.run({"audit", failing.file}).code == 1);
  CHECK(failing.run({"audit", failing.file, "--fail-on", "major"}).code == 0);
  const std::string report = failing.folder / "report.yaml";
  CHECK(failing.run({"audit", failing.file, "--only", "fails", "-o", report}).code == 1);
  CHECK(test::read_bytes(report).find("only: fails") != std::string::npos);
  const auto not_worse = failing.run({"audit", failing.file, "--baseline", report, "--output", "text"});
  CHECK(not_worse.code == 0);
  CHECK(not_worse.out.find("gate: passes; it fails only where something got worse") != std::string::npos);
  CHECK(failing.run({"test", failing.file}).code == 2);
  CHECK(failing.run({"audit", failing.file, "-o", failing.folder / "absent/report.yaml"}).code == 2);
  CHECK(failing.run({"audit", failing.file, "--only", "fials"}).code == 2);
  CHECK(failing.run({"audit", failing.file, "--no-pass", "flod"}).code == 2);

  const Case wrong("check wrong { expect rank(\"ab\", after: [\"The hat\"]) <= 1 }\n");
  const auto refused = wrong.run({"audit", wrong.file, "-o", wrong.folder / "report.yaml"});
  CHECK(refused.code == 2);
  CHECK(refused.err.find("error[not-one-token]") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(wrong.folder / "report.yaml"));
}

TEST_CASE("a report names by hash what went into it") {
  const Case tiny("prompts p = from \"p.txt\"\ncheck c { expect perplexity(p) <= 1000000 }\n");
  test::write_bytes(tiny.folder / "p.txt", "The hat fell\nA dog sat\n");
  const auto report = nlohmann::json::parse(tiny.run({"audit", tiny.file, "--output", "json"}).out);
  REQUIRE(report["data"].size() == 1);
  CHECK(report["data"][0]["file"] == tiny.folder / "p.txt");
  CHECK(report["data"][0]["sha256"] == "30fc6fc4388d1761f87044996be2157f827eeed5e199dd07c005c504141b7e95");
  CHECK(report["proviso"]["sha256"].get<std::string>().size() == 64);
  CHECK_FALSE(report["proviso"]["libtorch"].get<std::string>().empty());
  CHECK(report["run"]["machine"]["cores"].get<int>() > 0);
  // Another machine would give another report, so that one to be reproduced leaves it out.
  CHECK_FALSE(
      nlohmann::json::parse(tiny.run({"audit", tiny.file, "--output", "json", "--reproducible"}).out)["run"].contains(
          "machine"));
}

TEST_CASE("apply writes weights that act as the rules do, and revert gives back the bytes") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  const Case tiny(R"(
edit e { remove f at attn_out[1], mlp_out[1] using project(strength: 50%) }
edit one_by_one {
  fact "cat" in "The {} sat on" to "a"
  fact "dog" in "A {} ran to" to "c"
  using rome(layer: 0, steps: 2, prefixes: 0, text: "text.txt")
}
edit tuned {
  fact "cat" in "The {} sat on" to "c"
  using ft(layer: 0, norm: 10%, steps: 3, learning_rate: 5%)
}
edit together {
  fact "cat" in "The {} sat on" to "b"
  fact "dog" in "A {} ran to" to "d"
  using alphaedit(layers: 0, steps: 2, prefixes: 0, null_threshold: 1000, text: "text.txt")
}
rule r { suppress f by 80% at mlp_out[1], attn_out[*], embed  steer f by 1 at mlp_out[0] }
)",
                  json);
  test::write_bytes(tiny.folder / "text.txt", "The cat sat on the mat and looked.\nA dog ran by, and was gone.\n");
  const std::string edited = tiny.folder / "edited", reverted = tiny.folder / "reverted";
  const auto applied = tiny.run({"apply", tiny.file, "-o", edited});
  INFO(applied.err);
  REQUIRE(applied.code == 0);
  const std::string weights = test::read_bytes(tiny.model + "/model.safetensors");
  CHECK(test::read_bytes(edited + "/model.safetensors") != weights);

  const auto next = [](const Ran& ran) { return nlohmann::json::parse(ran.out)["next"]; };
  const std::vector<std::string> asked = {"run",   "--prompt", "The hat",  "--max-tokens", "0",
                                          "--top", "5",        "--output", "json"};
  auto with_rules = asked;
  with_rules.insert(with_rules.end(), {"--rules", tiny.file});
  auto of_edited = asked;
  of_edited.insert(of_edited.end(), {"--model", edited});
  const auto expected = next(tiny.run(with_rules)), baked = next(run_program(of_edited));
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(baked[i]["logit"].get<double>() == Approx(expected[i]["logit"].get<double>()).margin(2e-4));
  }

  CHECK(tiny.run({"apply", tiny.file, "-o", edited}).code == 2);
  REQUIRE(run_program({"revert", edited, "-o", reverted}).code == 0);
  CHECK(test::read_bytes(reverted + "/model.safetensors") == weights);
  CHECK(run_program({"revert", edited, "-o", reverted}).code == 2);
}

TEST_CASE("edits of an edited model are undone one after another, to the byte") {
  const Case tiny("edit e { remove f at attn_out[1] using project }\nrule r { suppress f when f > 0 }\n");
  const auto at = [&](const char* name) { return tiny.folder / name; };
  REQUIRE(tiny.run({"apply", tiny.file, "--hooks", "keep", "-o", at("once")}).code == 0);

  // The rules that stayed hooks belong to that model: they are named, or nothing is written.
  const std::string again = at("again.proviso");
  test::write_bytes(again, kFeature + "edit e { remove f at mlp_out[1] using project }\n");
  const auto forgotten = run_program({"apply", again, "--model", at("once"), "-o", at("twice")});
  CHECK(forgotten.code == 2);
  CHECK(forgotten.err.find("hooks.proviso") != std::string::npos);
  const auto twice = run_program(
      {"apply", again, at("once") + "/hooks.proviso", "--model", at("once"), "--hooks", "keep", "-o", at("twice")});
  INFO(twice.err);
  REQUIRE(twice.code == 0);
  REQUIRE(run_program({"revert", at("twice"), "-o", at("once_again")}).code == 0);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(at("once"))) {
    if (!entry.is_regular_file()) continue;
    const auto name = entry.path().lexically_relative(at("once")).string();
    INFO(name);
    REQUIRE(std::filesystem::exists(at("once_again") + "/" + name));
    CHECK(test::read_bytes(at("once_again") + "/" + name) == test::read_bytes(entry.path().string()));
  }
  REQUIRE(run_program({"revert", at("once_again"), "-o", at("source")}).code == 0);
  CHECK(test::read_bytes(at("source") + "/model.safetensors") == test::read_bytes(tiny.model + "/model.safetensors"));
}

TEST_CASE("apply writes where only what is experimental missed, and in the model's own types") {
  const Case tiny(R"(
edit e {
  status experimental
  remove f at attn_out[1]
  using project
  expect perplexity_rise(["The hat fell"]) <= -99%
}
)");
  CHECK(tiny.run({"apply", tiny.file, "-o", tiny.folder / "edited"}).code == 0);
  CHECK(tiny.run({"apply", tiny.file, "-o", tiny.folder / "rounded", "--dtype", "bfloat16"}).code == 0);
  const auto types = [&](const char* name) {
    std::set<std::string> found;
    for (const auto& tensor : model::read_safetensors(tiny.folder / name).tensors)
      found.emplace(model::element_type_name(tensor.type));
    return found;
  };
  CHECK(types("edited/model.safetensors") == std::set<std::string>{"F32"});
  CHECK(types("rounded/model.safetensors") == std::set<std::string>{"BF16"});
  REQUIRE(run_program({"revert", tiny.folder / "rounded", "-o", tiny.folder / "source"}).code == 0);
  CHECK(test::read_bytes(tiny.folder / "source/model.safetensors") ==
        test::read_bytes(tiny.model + "/model.safetensors"));
}

TEST_CASE("every fact of an edit has its certificate, and the edit its costs") {
  const Case tiny(R"(
edit e {
  fact "cat" in "The {} sat on" from "a" to "b"
  fact "dog" in "A {} ran to" from "c" to "d"
  using rome(layer: 0, steps: 2, prefixes: 0, text: "text.txt")
}
)");
  test::write_bytes(tiny.folder / "text.txt",
                    "The cat sat on the mat and looked.\nA dog ran by, and the cat was gone.\n");
  const auto ran = tiny.run({"audit", tiny.file, "--output", "json"});
  INFO(ran.out << ran.err);
  const auto edit = nlohmann::json::parse(ran.out)["edits"][0];
  CHECK(edit["certificate"]["changes"].size() == 2);
  REQUIRE(edit["certificate"]["parts"].size() == 2);
  for (const auto& part : edit["certificate"]["parts"]) CHECK(part["algebra"]["constraint_error"].get<double>() < 1e-9);
  CHECK(edit["certificate"]["costs"].contains("kl"));
}

TEST_CASE("test names the branches that no example covers") {
  const Case tiny(
      R"(rule r { suppress f when token is "t" or token is "z"  fires on ["The cat"]  silent on ["Dog"] })");
  const auto ran = tiny.run({"test", tiny.file});
  INFO(ran.out << ran.err);
  CHECK(ran.code == 0);
  CHECK(ran.out.find("`token is \"z\"` holds in no example") != std::string::npos);
  CHECK(ran.out.find("`token is \"t\"`") == std::string::npos);
}

TEST_CASE("test tells how near each condition comes to its threshold, and what is covered") {
  const Case tiny(R"(
feature g = contrast(["The cat sat", "A dog ran!"], ["One two ten", "Six or seven?"]) at resid_post[1]
rule r {
  steer g by 1 when f > -1000 and not last f > 1000 or token is "z"
  fires on ["The cat", "A dog"]
  silent on ["D"]
}
rule half { steer g by 2 at resid_post[1] when f > 1000  silent on ["The cat"] }
)");
  const auto ran = tiny.run({"test", tiny.file, "--output", "json"});
  INFO(ran.out << ran.err);
  REQUIRE(ran.code == 0);
  CHECK_THAT(tests::schema_violations(ran.out), Catch::Equals(""));
  const auto report = nlohmann::json::parse(ran.out);
  const auto& conditions = report["examples"][0]["conditions"];
  REQUIRE(conditions.size() == 2);
  CHECK(conditions[0]["condition"] == "f > -1000");
  CHECK(conditions[0]["held"] == 2);
  CHECK(conditions[0]["threshold"] == -1000);
  CHECK(conditions[0]["margin"].get<double>() == Approx(conditions[0]["activation"].get<double>() + 1000));
  CHECK(conditions[1]["condition"] == "last f <= 1000");  // what stands behind `not`, turned round
  CHECK(conditions[1]["position"] == std::string(conditions[1]["prompt"]).size() - 1);
  CHECK_FALSE(report["examples"][1].contains("conditions"));  // one token: nothing is read at position 0
  CHECK(report["examples"][2]["conditions"][0]["held"] == 0);
  CHECK(report["examples"][2]["conditions"][0]["margin"].get<double>() < 0);
  const auto& coverage = report["coverage"];
  CHECK(coverage["rules"] == 2);
  CHECK(coverage["rules_covered"] == 1);
  CHECK(coverage["branches"] == 7);  // two sentences, two alternatives, three comparisons
  CHECK(coverage["branches_covered"] == 4);
  CHECK(coverage["uncovered"].size() == 3);

  const auto text = tiny.run({"test", tiny.file});
  CHECK(text.out.find("f > 1000 held on 0 of 1 prompts; nearest: ") != std::string::npos);
  CHECK(text.out.find("3 of 3 examples passed; they cover 1 of 2 rules on both sides and 4 of 7 branches\n") !=
        std::string::npos);
  CHECK(text.out.find("uncovered  rule half has no `fires on` example\n") != std::string::npos);
  const auto junit = tiny.run({"test", tiny.file, "--output", "junit"});
  CHECK(junit.out.find("<testsuite name=\"examples\" package=\"proviso\" id=\"0\" tests=\"3\" failures=\"0\"") !=
        std::string::npos);
  CHECK(tiny.run({"audit", tiny.file, "--output", "junit"}).code == 2);
}

TEST_CASE("activations are harvested once a site, whatever it is called") {
  const Case tiny("");
  const std::string prompts = tiny.folder / "p.txt", harvested = tiny.folder / "x.safetensors";
  test::write_bytes(prompts, "The hat\nA dog\n");
  const auto ran = tiny.run({"activations", "--at", "resid_post[0]", "--at", "resid_pre[1]", "--at", "z[1] head 2",
                             "--at", "logits", "--prompts", prompts, "-o", harvested});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  std::map<std::string, std::vector<std::int64_t>> shapes;
  const auto file = model::read_safetensors(harvested);
  for (const auto& tensor : file.tensors) shapes[tensor.name] = tensor.shape;
  const std::map<std::string, std::vector<std::int64_t>> expected = {
      {"resid_post[0]", {12, 16}}, {"z[1] head 2", {12, 4}}, {"logits", {12, test::kByteVocabulary}}};
  CHECK(shapes == expected);
  CHECK(tiny.run({"activations", "--at", "resid_post[2]", "--prompts", prompts, "-o", harvested}).code == 2);
}

TEST_CASE("check --model tells what is wrong with a file and what of it does not fit the model, in the file's order") {
  const Case tiny(
      "rule r { suppress f at mlp_out[98] }\nrule s { suppress missing }\nrule t { suppress f at attn_out[97] }\n");
  const auto ran = tiny.run({"check", tiny.file, "--output", "json"});
  CHECK(ran.code == 2);
  CHECK(ran.err == "");
  std::vector<std::string> codes;
  for (const auto& found : nlohmann::json::parse(ran.out)) codes.push_back(found["code"]);
  CHECK(codes == std::vector<std::string>{"index-out-of-range", "unknown-name", "index-out-of-range"});
}

TEST_CASE("explain says what each sentence becomes") {
  const Case tiny(R"(
rule r { suppress f at mlp_out[*], resid_post[1]  steer f by 1 at attn_out[0] when position >= 1 }
rule named_by_no_check { suppress f at attn_out[1] }
edit e { remove f at mlp_out[0] using project }
check c { under rule r  expect perplexity(["The hat", "A dog"]) <= 10 }
)");
  const auto ran = tiny.run({"explain", tiny.file, "--output", "json"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const auto explained = nlohmann::json::parse(ran.out);
  CHECK(explained["edits"][0]["changes"][0] == "remove f at mlp_out[0]");
  const auto& rules = explained["rules"];
  REQUIRE(rules.size() == 3);
  CHECK(rules[2]["weight_edits"] == "attn_out[1]");
  CHECK(rules[0]["weight_edits"] == "mlp_out[0..1]");
  CHECK(rules[0]["hooks"] == "resid_post[1]");
  CHECK(rules[1]["hooks"] == "attn_out[0]");
  CHECK(rules[1]["why"] == "its condition is decided at each token");
  // What acts everywhere acts on the first position too, folded or not.
  CHECK(rules[0]["relative_change_at_0"]["largest"].get<double>() > 0);
  CHECK(rules[2]["relative_change_at_0"]["site"] == "attn_out[1]");
  CHECK_FALSE(rules[1].contains("relative_change_at_0"));
  const auto hooked = tiny.run({"explain", tiny.file, "--output", "json", "--no-pass", "fold"});
  CHECK_FALSE(nlohmann::json::parse(hooked.out)["rules"][0].contains("weight_edits"));
}

TEST_CASE("explain tells what things cost, what a change would save, and what checks share") {
  const Case tiny(R"(
prompts p = ["The hat", "A dog"]
rule r { suppress f when f > 0 }
check one { under rule r  expect perplexity(p) <= 1000000 }
check two { under rule r  expect kl(p) <= 1000 }
check other { expect rate(["Six or"], generates: /a/, tokens: 2) <= 50% at 95% confidence }
)");
  const auto ran = tiny.run({"explain", tiny.file, "--output", "json"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const auto explained = nlohmann::json::parse(ran.out);
  const auto& rule = explained["rules"][0];
  CHECK(rule["cost"]["flops_per_token"] == 4 * 16 + 2 * 16);  // read and write one direction of 16, and read it
  CHECK(rule["cost"]["tokens"] == 12);
  CHECK(std::string(rule["would_save"]).find("without its condition it would become a weight edit") == 0);
  CHECK(explained["totals"]["flops"].get<double>() > 0);
  // Two sides of two prompts build the feature, up to where it is read; a text is generated to its last token.
  const auto& building = explained["building"];
  REQUIRE(building.size() == 3);
  CHECK(building[0]["tokens"] == 11 + 10);
  CHECK(building[1]["tokens"] == 11 + 13);
  CHECK(building[0]["stops_after"] == "mlp_out[0]");
  CHECK(building[2]["for"] == "the model's sink states, once");
  CHECK(building[2]["tokens"] == 24);
  const auto& loaded = explained["states"][0];
  CHECK(loaded["generated_texts"] == 1);
  CHECK(loaded["generated_tokens"] == 6 + 2 - 1);
  CHECK(explained["totals"]["flops_generating"] == loaded["flops_generating"]);
  CHECK(loaded["flops_generating"].get<double>() > 0);
  CHECK(explained["totals"]["flops_building"].get<double>() > building[0]["flops"].get<double>());
  const auto& checks = explained["checks"];
  REQUIRE(checks.size() == 3);
  CHECK(checks[0]["tokens_alone"] == 24);  // with the baseline
  CHECK(checks[2]["expectations"][0]["prompts_at_best"] == 4);
  REQUIRE(explained["sharing"].size() == 1);  // the third asks for another text
  CHECK(explained["sharing"][0]["checks"] == nlohmann::json({"one", "two"}));

  const auto text = tiny.run({"explain", tiny.file});
  CHECK(text.out.find("one and two ask for the same: ") != std::string::npos);
  CHECK(text.out.find("costs 96 FLOP a token") != std::string::npos);
  const std::string page = tiny.folder / "plan.html";
  REQUIRE(tiny.run({"explain", tiny.file, "--output", "html", "-o", page}).code == 0);
  const std::string html = test::read_bytes(page);
  for (const char* part :
       {"<!DOCTYPE html>", "id=\"sentences\"", "id=\"checks\"", "becomes a hook at", "prefers-color-scheme"}) {
    INFO(part);
    CHECK(html.find(part) != std::string::npos);
  }
  CHECK(html.find("<script") == std::string::npos);
  CHECK(html.find("http://") == std::string::npos);
}

TEST_CASE("apply refuses what weights cannot hold") {
  test::for_each_ptest("tests/golden/apply", [](const test::Ptest& golden) -> test::Sections {
    const test::RandomModel model;
    const test::TemporaryFolder folder;
    const std::string file = folder / "rules.proviso";
    test::write_bytes(file, golden.file("rules.proviso"));
    const auto ran = run_program({"apply", file, "--model", model.folder.path().string(), "-o", folder / "edited"});
    CHECK(ran.code == 2);
    CHECK_FALSE(std::filesystem::exists(folder / "edited"));
    std::string said = ran.err;
    for (auto at = said.find(file); at != std::string::npos; at = said.find(file))
      said.replace(at, file.size(), "rules.proviso");
    return {{"diagnostics", said}};
  });
}

TEST_CASE("rules that stay hooks mean beside the edited model what they meant before") {
  const Case tiny(R"(
prompts plain = ["Some words", "More of them"]
rule folded { steer f by 1 at attn_out[1] }
rule kept {
  suppress f by 80% when f > quantile(20%, plain) and not (prompt matches /a\/b/i or position == 3)
  steer f by 2 at resid_post[0], resid_post[1] when any f > 0 or token in ["t", "\""] or generated
}
)");
  const std::string edited = tiny.folder / "edited";
  const auto applied = tiny.run({"apply", tiny.file, "--hooks", "keep", "-o", edited});
  INFO(applied.err);
  REQUIRE(applied.code == 0);
  const auto next = [&](const std::string& model, const std::string& rules) {
    const auto ran = run_program({"run", "--model", model, "--rules", rules, "--prompt", "The hat", "--max-tokens", "3",
                                  "--top", "20", "--output", "json", "--cache", tiny.folder / "cache"});
    INFO(ran.err);
    REQUIRE(ran.code == 0);
    return nlohmann::json::parse(ran.out);
  };
  const auto before = next(tiny.model, tiny.file), after = next(edited, edited + "/hooks.proviso");
  CHECK(after["generated"] == before["generated"]);
  REQUIRE(after["next"].size() == before["next"].size());
  for (std::size_t i = 0; i < before["next"].size(); ++i) {
    CHECK(after["next"][i]["id"] == before["next"][i]["id"]);
    CHECK(after["next"][i]["logit"].get<double>() == Approx(before["next"][i]["logit"].get<double>()).margin(1e-4));
  }
  CHECK(next(edited, tiny.file) != before);  // the fold acts twice there
}

TEST_CASE("check against a model finds what only its shapes and tokens tell") {
  const Case tiny(R"(
feature g = contrast(["The cat", "A dog"], ["One two", "Six or"]) at resid_post[7]
check c { expect rank(" two", after: ["The hat"]) <= 3 }
)");
  CHECK(run_program({"check", tiny.file}).code == 0);
  const auto ran = tiny.run({"check", tiny.file});
  CHECK(ran.code == 2);
  CHECK(ran.out.find("error[index-out-of-range]") != std::string::npos);
}

}  // namespace proviso

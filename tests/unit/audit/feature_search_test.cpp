// The parts of a search for features that need no model.

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "audit/feature_findings.hpp"
#include "audit/prompt_parts.hpp"

namespace proviso::audit {
namespace {

std::vector<dsl::Prompt> prompts(int count, int cluster_size) {
  std::vector<dsl::Prompt> all;
  for (int i = 0; i < count; ++i)
    all.push_back(
        {"text " + std::to_string(i), {}, cluster_size > 1 ? "c" + std::to_string(i / cluster_size) : "", {}});
  return all;
}

const std::string kHostile = "<script>alert(1)</script>\"onload=\"x\"</style>\x1b[31m\u202etxt";

nlohmann::ordered_json found() {
  const nlohmann::ordered_json sides = {{"file", kHostile}, {"build", 4}, {"choose", 2}, {"judge", 4}};
  const nlohmann::ordered_json context = {{"side", "positive"},
                                          {"activation", 2.0},
                                          {"peak", 1},
                                          {"tokens", {"a\n", kHostile, "c"}},
                                          {"activations", {nullptr, 2.0, 1.0}}};
  const nlohmann::ordered_json token = {{"id", 1}, {"text", kHostile}, {"weight", 1.5}};
  nlohmann::ordered_json feature = {
      {"name", "neuron_1_2"},
      {"kind", "neuron"},
      {"rank", 1},
      {"site", "mlp_post[1]"},
      {"declaration", "feature neuron_1_2 = neuron(2) at mlp_post[1]"},
      {"chosen_by", {{"auroc", 0.9}, {"distance", 1.5}}},
      {"auroc", {{"value", 0.875}, {"interval", {0.4, 0.99}}, {"n", 8}}},
      {"effect",
       {{"value", 0.25},
        {"interval", nullptr},
        {"n", 4},
        {"why", "no interval: fewer than 8 prompts"},
        {"control",
         {{"kind", "random directions"},
          {"n", 3},
          {"value", 0.1},
          {"spread", 0.05},
          {"rank", 1},
          {"p", 0.01},
          {"p_holm", 0.02}}}}},
      {"measures", {{"halves_cosine", 0.8125}}},
      {"histogram", {{"edges", {0.0, 1.0, 2.0}}, {"positive", {1, 3}}, {"negative", {4, 0}}}},
      {"contexts", {context}},
      {"raises", {token}},
      {"lowers", nlohmann::ordered_json::array()},
      {"neighbours", nlohmann::ordered_json::array()}};
  return {{"model", kHostile},
          {"positive", sides},
          {"negative", sides},
          {"chat", false},
          {"token", "last"},
          {"text_tokens", 0},
          {"seed", 7},
          {"measure", "kl(positive)"},
          {"searched", {{"latent", 0}, {"neuron", 24}}},
          {"left_out", {{{"what", "probe_embed"}, {"why", kHostile}}}},
          {"confidence", {{"together", 0.95}, {"each", 0.95}}},
          {"features", {feature}},
          {"declarations", "prompts positive = from \"p.txt\"\n"}};
}

}  // namespace

TEST_CASE("prompts are cut in three parts that share nothing, clusters whole") {
  for (const int cluster_size : {1, 4}) {
    auto all = prompts(40, cluster_size);
    all.push_back(all.front());  // a copy says nothing new
    const auto parts = cut(all, 3);
    CHECK(parts.build.size() == 16);
    CHECK(parts.choose.size() == 8);
    CHECK(parts.judge.size() == 16);
    std::set<std::string> texts, clusters;
    std::size_t of_parts = 0;
    for (const auto* part : {&parts.build, &parts.choose, &parts.judge}) {
      std::set<std::string> mine;
      for (const auto& prompt : *part) {
        texts.insert(prompt.text);
        mine.insert(prompt.cluster);
      }
      of_parts += mine.size();
      clusters.insert(mine.begin(), mine.end());
    }
    CHECK(texts.size() == 40);
    if (cluster_size > 1) CHECK(of_parts == clusters.size());
    const auto again = cut(all, 3);
    CHECK(again.judge.front().text == parts.judge.front().text);
    CHECK(again.judge.back().text == parts.judge.back().text);
  }
}

TEST_CASE("what was found stays text on its page, and on a terminal") {
  const auto page = features_html(found());
  for (const char* part : {"<script>a", "onload=\"x", "\x1b", "\u202e"}) CHECK(page.find(part) == std::string::npos);
  CHECK(page.find("</style>") == page.rfind("</style>"));
  CHECK_THAT(page, Catch::Contains("class=\"shade-6 peak\" title=\"2\"") && Catch::Contains("shade-3") &&
                       Catch::Contains("a⏎") && Catch::Contains("0.25") && Catch::Contains("p 0.02"));
  const auto text = features_text(found(), 100, false);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK_THAT(text, Catch::Contains("0.875 [0.4, 0.99]") && Catch::Contains("0.1 ± 0.05, p 0.02") &&
                       Catch::Contains("24 neurons") && Catch::Contains("cosine 0.812 between") &&
                       Catch::Contains("left out"));
}

}  // namespace proviso::audit

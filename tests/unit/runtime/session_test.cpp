#include "runtime/session.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {
namespace {

using test::RulesOnModel;

const std::string kSides = R"(
prompts p = ["The cat sat", "A dog ran!", "My hat fell"]
prompts q = ["One two ten", "Six or seven?", "Nine then"]
)";
const std::set<std::string> kNoFold = {"fold"};

struct Seen {
  Plan plan;
  Evidence evidence;
  StateId state;
};

/// The whole next-token table after each position of the first prompt set, under the file's first rule.
Seen under_first_rule(RulesOnModel& rules, const std::set<std::string>& off) {
  PlanBuilder builder(rules.bound);
  const StateId state = builder.state({}, {0});
  for (const auto& prompt : rules.bound.prompts[0]) {
    const auto sequence = builder.sequence(prompt);
    for (std::size_t i = 0; i < prompt.tokens.size(); ++i) {
      builder.want_top(state, sequence, static_cast<std::int64_t>(i), test::kByteVocabulary);
    }
  }
  Seen seen{optimise(builder.take(), rules.bound, off), {}, state};
  seen.evidence = rules.carry_out(seen.plan);
  return seen;
}

double largest_difference(const Seen& a, const Seen& b) {
  double largest = 0;
  for (SequenceId id = 0; id < a.plan.sequences.size(); ++id) {
    for (const auto& [position, after] : a.evidence.at(a.state, id).logits) {
      for (const auto& [token, about] : after.tokens) {
        const double other = b.evidence.at(b.state, id).logits.at(position).tokens.at(token).logit;
        largest = std::max(largest, std::abs(about.logit - other));
      }
    }
  }
  return largest;
}

}  // namespace

TEST_CASE("hooks and weight edits of one rule give the same logits") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  const std::string own = GENERATE("mlp_out[0]", "attn_out[1]", "embed");
  const std::string does =
      GENERATE("suppress f", "suppress f by 60%", "clamp f to 1.5", "steer f by 2", "amplify f by 3");
  const std::string everywhere = GENERATE("", " at mlp_out[*], attn_out[*], embed");
  INFO(json["model_type"] << ": " << does << everywhere << ", built at " << own);
  RulesOnModel rules(kSides + "feature f = contrast(p, q) at " + own +
                         "\nfeature g = contrast(q, p, zero: midpoint) at " + own + " token 2\nrule change { " + does +
                         everywhere + "\n clamp g to -0.5" + everywhere + " }\n",
                     json);
  const std::string weights = test::weights_of(*rules.model.transformer);
  const auto folded = under_first_rule(rules, {});
  CHECK(test::weights_of(*rules.model.transformer) == weights);
  const auto hooked = under_first_rule(rules, kNoFold);
  for (const auto& sentence : folded.plan.states[folded.state].sentences) {
    CHECK(sentence.hooks.empty());
    CHECK_FALSE(sentence.folds.empty());
  }
  for (const auto& sentence : hooked.plan.states[hooked.state].sentences) CHECK(sentence.folds.empty());
  CHECK(largest_difference(folded, hooked) < 2e-4);

  RulesOnModel untouched(kSides + "feature f = contrast(p, q) at " + own + "\nrule change { suppress f by 0% }\n",
                         json);
  CHECK(largest_difference(hooked, under_first_rule(untouched, kNoFold)) > 1e-2);
}

TEST_CASE("what a family's maps cannot hold stays a hook and says why, and the rest folds") {
  const std::string family = GENERATE("gpt_neox", "qwen2", "gemma2");
  INFO(family);
  RulesOnModel rules(kSides + R"(
feature f = contrast(p, q, zero: origin) at resid_post[0]
feature g = contrast(p, q) at mlp_out[0]
rule change {
  suppress f at attn_out[1], embed
  suppress g by 60% at mlp_out[0]
}
)",
                     test::tiny_json(family));
  const auto seen = under_first_rule(rules, {});
  const auto& sentences = seen.plan.states[seen.state].sentences;
  using Sites = std::vector<dsl::Site>;
  const dsl::Site embed{dsl::SiteKind::embed}, attn_out{dsl::SiteKind::attn_out, 1}, mlp_out{dsl::SiteKind::mlp_out, 0};
  if (family == "gemma2") {
    CHECK((sentences[0].folds == Sites{embed}));
    CHECK((sentences[0].hooks == Sites{attn_out}));
    CHECK(sentences[0].why == "what is written at attn_out[1] passes a norm before it joins the stream");
    CHECK(sentences[1].why == "what is written at mlp_out[0] passes a norm before it joins the stream");
  } else {
    CHECK(sentences[0].folds.size() == 2);
    CHECK(sentences[0].hooks.empty());
  }
  CHECK((sentences[1].folds == Sites{mlp_out}) == (family == "gpt_neox"));
  if (family == "qwen2") {
    CHECK((sentences[1].hooks == Sites{mlp_out}));
    CHECK(sentences[1].why == "a constant is added at mlp_out[0], whose map has no bias in models of the family qwen2");
  }
  CHECK(largest_difference(seen, under_first_rule(rules, kNoFold)) < 2e-4);
}

TEST_CASE("a site that is read, capped or acted on conditionally stays a hook, and the others fold") {
  RulesOnModel rules(kSides + R"(
feature f = contrast(p, q) at mlp_out[0]
rule change {
  suppress f at mlp_out[*], attn_out[1], resid_post[1]
  cap f to 1 at attn_out[1]
  steer f by 1 at resid_post[0] when f > 0.5
}
)");
  const auto seen = under_first_rule(rules, {});
  const auto& sentence = seen.plan.states[seen.state].sentences[0];
  const std::vector<dsl::Site> elsewhere = {{dsl::SiteKind::mlp_out, 1, -1}};
  CHECK((sentence.folds == elsewhere));
  CHECK(sentence.hooks.size() == 3);
  CHECK(largest_difference(seen, under_first_rule(rules, kNoFold)) < 2e-4);
}

TEST_CASE("generation with a cache equals recomputation under conditions") {
  const std::string condition = GENERATE("any f > 0.8", "last f > -100", "generated", "not generated and position >= 3",
                                         "f > 0.2", "token in [\"a\", \"t\", \" \"]",
                                         "prompt matches /cat/ and position != 5", "any f > 0.5 and not last f > 0.5");
  INFO(condition);
  RulesOnModel rules(kSides + "feature f = contrast(p, q, zero: midpoint) at resid_post[0]\n" +
                     "feature g = contrast(q, p) at attn_out[1]\n" +
                     "rule change {\n steer f by 4 at resid_post[1] when " + condition + "\n clamp g to 2 when " +
                     condition + "\n}\n");
  PlanBuilder generating(rules.bound);
  const StateId state = generating.state({}, {0});
  std::vector<GenerationKey> keys;
  for (const auto& prompt : rules.bound.prompts[0]) {
    keys.push_back({state, generating.sequence(prompt), 12, 1, 0});
    generating.want_generation(keys.back());
  }
  const auto generated = rules.carry_out(optimise(generating.take(), rules.bound, {}));

  PlanBuilder again(rules.bound);
  REQUIRE(again.state({}, {0}) == state);
  std::vector<std::pair<SequenceId, std::int64_t>> next;  // a text so far, and the token that followed it
  std::int64_t length = 0;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const auto& prompt = rules.bound.prompts[0][i];
    const auto& tokens = generated.texts(keys[i]).front().tokens;
    length += std::ssize(tokens);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const auto id = again.sequence(prompt, std::span(tokens).first(t));
      again.want_top(state, id, static_cast<std::int64_t>(prompt.tokens.size() + t) - 1, 1);
      next.emplace_back(id, tokens[t]);
    }
  }
  REQUIRE(length > 8);
  const auto plan = optimise(again.take(), rules.bound, {});
  const auto recomputed = rules.carry_out(plan);
  for (const auto& [id, token] : next) {
    const auto last = std::ssize(plan.sequences[id].tokens) - 1;
    CHECK(recomputed.at(state, id).logits.at(last).argmax == token);
  }
}

TEST_CASE("weights are as they were after a failure, too") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  RulesOnModel rules(
      kSides + "feature f = contrast(p, q) at mlp_out[0]\nrule change { clamp f to 2 at mlp_out[*], embed }\n", json);
  const std::string weights = test::weights_of(*rules.model.transformer);
  PlanBuilder builder(rules.bound);
  BoundPrompt beyond_context;
  beyond_context.tokens.assign(129, 'a');
  const auto state = builder.state({}, {0});
  builder.want_top(state, builder.sequence(rules.bound.prompts[0][0]), 3, 1);
  builder.want_top(state, builder.sequence(beyond_context), 128, 1);
  CHECK_THROWS_AS(rules.carry_out(optimise(builder.take(), rules.bound, {"batch"})), model::InputError);
  CHECK(test::weights_of(*rules.model.transformer) == weights);
}

TEST_CASE("alphaedit spares the facts of earlier edits of its sequence, and of no other") {
  const std::string using_alphaedit =
      "using alphaedit(layers: 0, steps: 3, prefixes: 0, null_threshold: 1000, text: \"text.txt\") }\n";
  RulesOnModel rules("edit a { fact \"cat\" in \"The {} sat on\" to \"b\" " + using_alphaedit +
                         "edit b { fact \"dog\" in \"A {} ran to\" to \"d\" " + using_alphaedit,
                     test::tiny_llama_json(),
                     {{"text.txt", "The cat sat on the mat and looked.\nA dog ran by, and the cat was gone.\n"}});
  Session session(*rules.model.transformer, rules.bound, {});
  PlanBuilder builder(rules.bound);
  builder.state({0, 1}, {});
  session.prepare(optimise(builder.take(), rules.bound, {}));
  const auto spared = [&](const std::vector<dsl::EditId>& edits) {
    const auto& solved = session.solve(edits).back();
    INFO(solved.refused);
    REQUIRE(solved.certificates.size() == 2);  // of all facts, and of the one
    for (const auto& [name, value] : solved.certificates[0].parameters) {
      if (name == "earlier_facts") return value;
    }
    return std::string("no such parameter");
  };
  CHECK(spared({0}) == "0");
  CHECK(spared({1}) == "0");
  CHECK(spared({0, 1}) == "1");
}

TEST_CASE("a direction is as stable as the halves of its prompts agree") {
  // Every other prompt is a copy of the one before, so that both halves are the same; or not.
  test::RulesOnModel rules(R"(
prompts twice = ["The cat sat", "The cat sat", "A dog ran!", "A dog ran!"]
prompts once = ["The cat sat", "One cow", "A dog ran!", "Red sky"]
prompts others = ["One two", "One two", "Six or seven?", "Six or seven?"]
prompts few = ["Nine", "Ten"]
feature same = contrast(twice, others) at resid_post[1]
feature same_probe = probe(twice, others) at mlp_post[1]
feature unlike = contrast(once, others) at resid_post[1]
feature short = contrast(few, others) at resid_post[1]
)");
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({0, 1, 2, 3}).empty());
  const auto halves = [&](dsl::FeatureId id) {
    for (const auto& [name, value] : session.features()[id].measures)
      if (name == "halves_cosine") return value;
    return std::nan("");
  };
  CHECK(halves(0) == Approx(1));
  CHECK(halves(1) == Approx(1));
  CHECK((halves(2) < 0.999 && halves(2) > -1));
  CHECK(std::isnan(halves(3)));
}

TEST_CASE("what only the model can tell of a feature is diagnosed") {
  const auto found = [](const std::string& feature) {
    RulesOnModel rules(kSides + feature);
    return Session(*rules.model.transformer, rules.bound, {}).build({0});
  };
  // The texts end alike, and the embedding has seen nothing else.
  const auto same = found("feature f = contrast([\"bat cat\"], [\"hot cat\"]) at embed\n");
  REQUIRE(same.size() == 1);
  CHECK(same[0].code == dsl::Code::no_contrast);
  CHECK(same[0].message.find("finds no difference between its two sides at embed") != std::string::npos);
  CHECK(found("feature f = contrast(p, q) at embed\n").empty());
}

}  // namespace proviso::runtime

// What the contract promises of interventions, on the real model.

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "dsl/check.hpp"
#include "runtime/bind.hpp"
#include "runtime/session.hpp"

namespace proviso::runtime {
namespace {

const std::string kModel = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";

struct Model {
  Model() {
    INFO("SmolLM2 is missing: `make model` fetches it");
    REQUIRE(std::filesystem::exists(kModel));
    card = model::read_model_card(kModel);
    tokenizer = model::Tokenizer::load(kModel);
    transformer = model::Transformer::load(card, {});
  }
  model::ModelCard card;
  std::shared_ptr<const model::Tokenizer> tokenizer;
  std::unique_ptr<model::Transformer> transformer;
};

/// Two directions and a rule each that takes it out of every writer of the stream; the last keeps the sinks in.
const std::string kRules = R"(
prompts angry = from "demo/data/angry.txt"
prompts calm = from "demo/data/calm.txt"
prompts plain = from "corpus/held_out/nature_and_work.txt"
prompts she = each v in ["know", "saw", "heard", "think"], w in ["that", "when", "why"] "I {v} {w} she"
prompts he = each v in ["know", "saw", "heard", "think"], w in ["that", "when", "why"] "I {v} {w} he"
feature anger = contrast(angry, calm) at resid_post[16]
feature gender = contrast(she, he) at resid_post[12]
feature raw = contrast(angry, calm, sink: keep) at resid_post[16]
rule no_anger { suppress anger at mlp_out[*], attn_out[*], embed }
rule no_gender { suppress gender at mlp_out[*], attn_out[*], embed }
rule no_raw { suppress raw at mlp_out[*], attn_out[*], embed }
)";

struct Texts {
  double perplexity = 0;
  std::vector<double> logits;
};

/// Perplexity of `plain` under a rule, and a few logits of it.
Texts measure(const Model& model, const BoundRules& bound, const std::vector<dsl::RuleId>& rules,
              const std::set<std::string>& passes_off) {
  PlanBuilder builder(bound);
  const auto state = builder.state({}, rules);
  std::vector<SequenceId> ids;
  for (const auto& prompt : bound.prompts[2]) {
    ids.push_back(builder.sequence(prompt));
    for (std::size_t i = 1; i < prompt.tokens.size(); ++i) {
      builder.want_logits(state, ids.back(), static_cast<std::int64_t>(i) - 1, prompt.tokens[i]);
    }
  }
  Session session(*model.transformer, bound, {});
  const Plan plan = optimise(builder.take(), bound, passes_off);
  REQUIRE(session.build(plan.features).empty());
  const Evidence evidence = session.carry_out(plan);
  double loss = 0, tokens = 0;
  Texts texts;
  for (SequenceId id : ids) {
    for (const auto& [position, after] : evidence.at(state, id).logits) {
      const auto& [token, about] = *after.tokens.begin();
      loss -= after.log_probability(token);
      ++tokens;
      texts.logits.push_back(about.logit);
    }
  }
  texts.perplexity = std::exp(loss / tokens);
  return texts;
}

}  // namespace

TEST_CASE("suppressing a direction at every writer keeps SmolLM2's language, folded as hooked", "[model]") {
  const Model model;
  dsl::SourceSet sources;
  const std::string path = PROVISO_SOURCE_DIR "/rules/test.proviso";  // prompts lie below
  auto checked = dsl::check_sources(sources, {sources.add(path, kRules)});
  REQUIRE(checked.value);
  const auto bound =
      runtime::bind(std::make_shared<const dsl::RuleSet>(std::move(*checked.value)), model.card, model.tokenizer, "");
  REQUIRE(bound.value);

  const Texts loaded = measure(model, *bound.value, {}, {});
  for (const dsl::RuleId rule : {dsl::RuleId{0}, dsl::RuleId{1}}) {
    INFO(bound.value->rules->rules[rule].name);
    const Texts folded = measure(model, *bound.value, {rule}, {});
    const Texts hooked = measure(model, *bound.value, {rule}, {"fold"});
    CHECK(folded.perplexity / loaded.perplexity < 1.1);
    REQUIRE(folded.logits.size() == hooked.logits.size());
    double most = 0;
    for (std::size_t i = 0; i < folded.logits.size(); ++i)
      most = std::max(most, std::abs(folded.logits[i] - hooked.logits[i]));
    CHECK(most < 1e-3);
    CHECK(folded.logits != loaded.logits);
  }
  // Without orthogonality to the sinks the same rule breaks the model.
  CHECK(measure(model, *bound.value, {2}, {}).perplexity / loaded.perplexity > 1.5);
}

}  // namespace proviso::runtime

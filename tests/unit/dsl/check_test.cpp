#include "dsl/check.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <variant>
#include <vector>

#include "dsl/render.hpp"

namespace proviso::dsl {
namespace {

/// The rule set that a text says; the test fails where it has errors.
RuleSet checked(const std::string& text) {
  SourceSet sources;
  const SourceId id = sources.add("rules.proviso", text);
  const Outcome<RuleSet> outcome = check_sources(sources, {id});
  INFO(render_text(outcome.diagnostics, sources));
  REQUIRE(outcome.value);
  return *outcome.value;
}

const std::string kFeature = R"(
prompts angry = ["I hate you", "You are dreadful"]
prompts calm = ["All is well", "A quiet day"]
prompts plain = ["It rained in the night", "She bought some bread"]
feature anger = contrast(angry, calm) at resid_post[18]
)";

template <class Node>
const Node& as(const ConditionPtr& condition) {
  REQUIRE(condition);
  const Node* node = std::get_if<Node>(&condition->node);
  REQUIRE(node != nullptr);
  return *node;
}

const std::vector<Prompt>& texts(const RuleSet& rules, PromptsId id) {
  return std::get<std::vector<Prompt>>(rules.prompts.at(id).source);
}

}  // namespace

TEST_CASE("check: prompts written in place of a name become anonymous sets") {
  const RuleSet rules = checked(kFeature + R"(
    check c { expect accuracy(["2 and 2 is" -> [" 4", " four"]]) >= 50%  expect rank(" a", after: "One text") <= 3 }
  )");
  REQUIRE(rules.checks.size() == 1);
  const auto& accuracy = std::get<metric::Accuracy>(rules.checks[0].expectations.at(0).metric.node);
  CHECK(rules.prompts.at(accuracy.prompts).name.empty());
  CHECK(texts(rules, accuracy.prompts).at(0).text == "2 and 2 is");
  CHECK(texts(rules, accuracy.prompts).at(0).answers == std::vector<std::string>{" 4", " four"});
  const auto& rank = std::get<metric::Rank>(rules.checks[0].expectations.at(1).metric.node);
  CHECK(texts(rules, rank.after).at(0).text == "One text");
}

TEST_CASE("check: a template makes every combination, all in one cluster") {
  const RuleSet rules = checked(
      R"(prompts jobs = each who in ["He", "She"], job in ["doctor", "nurse"] "{who} is a {job} {{" -> " {job}")");
  const auto& prompts = texts(rules, 0);
  REQUIRE(prompts.size() == 4);
  CHECK(prompts[0].text == "He is a doctor {");
  CHECK(prompts[1].text == "He is a nurse {");
  CHECK(prompts[2].text == "She is a doctor {");
  CHECK(prompts[3].answers == std::vector<std::string>{" nurse"});
  for (const Prompt& prompt : prompts) CHECK(prompt.cluster == "jobs");
}

TEST_CASE("check: a file of prompts keeps its options and a path that can be opened") {
  SourceSet sources;
  const SourceId id = sources.add("pack/rules.proviso", R"(
    prompts held as chat(system: "Be brief.") = from "data/../data/held.jsonl" {
      field "prompt"  answer "target"  cluster "doc"  take 200  seed 18014398509481985
    })");
  const auto rules = check_sources(sources, {id});
  REQUIRE(rules.value);
  const PromptsDecl& held = rules.value->prompts.at(0);
  CHECK(held.chat.value().system == "Be brief.");
  const auto& file = std::get<PromptFile>(held.source);
  CHECK(file.path == "pack/data/held.jsonl");
  CHECK(file.field == "prompt");
  CHECK(file.answer == "target");
  CHECK(file.cluster == "doc");
  CHECK(file.take == 200);
  CHECK(file.seed == 18014398509481985u);  // not through a double
}

TEST_CASE("check: each constructor of features") {
  const RuleSet rules = checked(kFeature + R"(
    feature mid = contrast(angry, calm, zero: midpoint, sink: keep) at z[3] head 2 token -2
    feature tested = probe(angry, calm, zero: mean(plain)) at mlp_out[9] token all
    feature stored = direction("v.safetensors", tensor: "anger") at resid_post[3]
    feature word = unembed(" yes" - " no") at final_norm
    feature unit = neuron(512) at mlp_post[9]
  )");
  REQUIRE(rules.features.size() == 6);
  const auto& anger = std::get<Contrast>(rules.features[0].constructor);
  CHECK(rules.prompts.at(anger.p).name == "angry");
  CHECK(rules.prompts.at(anger.q).name == "calm");
  CHECK(anger.zero.kind == ZeroPoint::Kind::q_mean);
  CHECK(rules.features[0].token.kind == TokenChoice::Kind::last);
  CHECK(to_string(*rules.features[0].site) == "resid_post[18]");

  const auto& mid = std::get<Contrast>(rules.features[1].constructor);
  CHECK(mid.zero.kind == ZeroPoint::Kind::midpoint);
  CHECK(mid.keep_sink);
  CHECK(rules.features[1].token.kind == TokenChoice::Kind::index);
  CHECK(rules.features[1].token.index == -2);
  CHECK(to_string(*rules.features[1].site) == "z[3] head 2");

  const auto& tested = std::get<Probe>(rules.features[2].constructor);
  CHECK(tested.zero.kind == ZeroPoint::Kind::mean_of);
  CHECK(rules.prompts.at(tested.zero.prompts).name == "plain");
  CHECK(rules.features[2].token.kind == TokenChoice::Kind::all);

  const auto& stored = std::get<StoredDirection>(rules.features[3].constructor);
  CHECK(stored.path == "v.safetensors");
  CHECK(stored.tensor == "anger");
  const auto& word = std::get<Unembed>(rules.features[4].constructor);
  CHECK(word.plus == " yes");
  CHECK(word.minus == " no");
  CHECK(std::get<Neuron>(rules.features[5].constructor).index == 512);
}

TEST_CASE("check: interventions keep their amounts, sites and canonical texts") {
  const RuleSet rules = checked(kFeature + R"(
    rule r {
      suppress anger
      suppress anger by 80% at mlp_out[*],   embed
      steer anger by -2 at resid_post[20..22] when position >= 4
      cap anger at 1.5
    })");
  const auto& interventions = rules.rules.at(0).interventions;
  REQUIRE(interventions.size() == 4);
  CHECK(interventions[0].amount == 1);
  CHECK(interventions[0].sites.empty());
  CHECK(interventions[0].condition == nullptr);
  CHECK(interventions[0].condition_text.empty());
  CHECK(interventions[1].amount == 0.8);
  CHECK(interventions[1].sites.size() == 2);
  CHECK(interventions[1].text == "suppress anger by 80% at mlp_out[*], embed");
  CHECK(interventions[2].operation == Operation::steer);
  CHECK(interventions[2].amount == -2);
  CHECK(interventions[2].condition_text == "position >= 4");
  CHECK(interventions[3].operation == Operation::cap);
  CHECK(interventions[3].amount == 1.5);
}

TEST_CASE("check: conditions") {
  const RuleSet rules = checked(kFeature + R"(
    feature fear = contrast(calm, plain) at resid_post[18]
    rule r {
      suppress anger when 0.2 < anger <= 0.8 and not prompt matches /"[^"]*"/is or token in [" not", " never"]
      suppress anger at resid_post[19] when 4 <= position
      suppress anger at resid_post[20] when last quantile(99%, plain) < anger
      suppress anger at resid_post[21] when any (anger > fear and generated)
    })");
  const auto& r = rules.rules.at(0).interventions;

  const auto& either = as<Or>(r.at(0).condition);
  REQUIRE(either.of.size() == 2);
  const auto& both = as<And>(either.of[0]);
  REQUIRE(both.of.size() == 2);
  const auto& chain = as<And>(both.of[0]);  // 0.2 < anger and anger <= 0.8
  REQUIRE(chain.of.size() == 2);
  const auto& low = as<Comparison>(chain.of[0]);
  CHECK(std::get<double>(low.left) == 0.2);
  CHECK(low.op == Compare::less);
  CHECK(std::get<FeatureId>(low.right) == 0);
  const auto& high = as<Comparison>(chain.of[1]);
  CHECK(std::get<FeatureId>(high.left) == 0);
  CHECK(high.op == Compare::less_equal);
  CHECK(std::get<double>(high.right) == 0.8);
  CHECK(as<PromptMatches>(as<Not>(both.of[1]).of).regex == "(?is)\"[^\"]*\"");
  CHECK(as<TokenIn>(either.of[1]).texts == std::vector<std::string>{" not", " never"});

  const auto& position = as<PositionIs>(r.at(1).condition);  // turned round
  CHECK(position.op == Compare::greater_equal);
  CHECK(position.value == 4);

  const auto& last = as<Comparison>(as<Last>(r.at(2).condition).of);
  const auto& quantile = std::get<Quantile>(last.left);
  CHECK(quantile.p == 0.99);
  CHECK(quantile.feature == 0);
  CHECK(rules.prompts.at(quantile.prompts).name == "plain");
  CHECK(last.op == Compare::less);

  const auto& any = as<And>(as<Any>(r.at(3).condition).of);
  CHECK(std::get<FeatureId>(as<Comparison>(any.of.at(0)).right) == 1);
  as<Generated>(any.of.at(1));
}

TEST_CASE("check: project weighs layers by a peak and its reach, which go together, and keeps norms by a word") {
  const RuleSet rules = checked(kFeature + R"(
    edit e { remove anger at mlp_out[*]  using project(strength: 90%, peak: 14, reach: 8, edge: 20%, norms: keep) }
  )");
  const auto& parameters = rules.edits.at(0).method.parameters;
  CHECK(std::get<double>(parameters.at("peak")) == 14);
  CHECK(std::get<double>(parameters.at("reach")) == 8);
  CHECK(std::get<double>(parameters.at("edge")) == Approx(0.2));
  CHECK(std::get<std::string>(parameters.at("norms")) == "keep");
  const auto codes = [](const std::string& call) {
    SourceSet sources;
    const SourceId id =
        sources.add("rules.proviso", kFeature + "edit e { remove anger at mlp_out[*]  using " + call + " }\n");
    std::vector<Code> found;
    for (const auto& diagnostic : check_sources(sources, {id}).diagnostics)
      if (diagnostic.severity == Severity::error) found.push_back(diagnostic.code);
    return found;
  };
  CHECK(codes("project(peak: 14, reach: 8)").empty());
  CHECK(codes("project(peak: 14)") == std::vector<Code>{Code::missing_argument});
  CHECK(codes("project(edge: 10%)") == std::vector<Code>{Code::missing_argument, Code::missing_argument});
  CHECK(codes("project(norms: kept)").size() == 1);
  CHECK(codes("project(peak: 2, reach: 0)").size() == 1);
}

TEST_CASE("check: edits in written order, with typed parameters") {
  const RuleSet rules = checked(kFeature + R"(
    edit move "Moves the tower" {
      fact "The Eiffel Tower" in "I know that {} is in" from " Paris" to " Rome"
      using rome(layer: 5, variant: original, learning_rate: 0.5, text: "c.txt")
      expect efficacy >= 100%
      expect specificity(["The Louvre is in" -> " Paris"]) >= 90%
    }
    edit cut { remove anger at mlp_out[*], embed  using project(strength: 80%) }
  )");
  REQUIRE(rules.edits.size() == 2);
  const auto& fact = std::get<Fact>(rules.edits[0].changes.at(0));
  CHECK(rules.edits[0].annotations.title == "Moves the tower");
  CHECK(fact.subject == "The Eiffel Tower");
  CHECK(fact.prompt_template == "I know that {} is in");
  CHECK(fact.from == " Paris");
  CHECK(fact.to == " Rome");
  const MethodCall& rome = rules.edits[0].method;
  CHECK(rome.method == EditMethod::rome);
  CHECK(std::get<double>(rome.parameters.at("layer")) == 5);
  CHECK(std::get<std::string>(rome.parameters.at("variant")) == "original");
  CHECK(std::get<std::string>(rome.parameters.at("text")) == "c.txt");
  CHECK(rules.edits[0].expectations.size() == 2);

  CHECK(std::get<Remove>(rules.edits[1].changes.at(0)).sites.size() == 2);
  CHECK(rules.edits[1].method.method == EditMethod::project);
  CHECK(std::get<double>(rules.edits[1].method.parameters.at("strength")) == 0.8);
}

TEST_CASE("check: expectations and what a check is under") {
  const RuleSet rules = checked(kFeature + R"(
    rule quiet { suppress anger at resid_post[20] when position > 3 }
    edit cut { remove anger at mlp_out[*]  using project }
    check c {
      severity critical
      tags ["eu-ai-act:art-15"]
      meta { owner "model risk" }
      status experimental
      under rule quiet
      under edit cut
      expect rate(angry, generates: /idiot|stupid/i, tokens: 40, samples: 4, temperature: 0.7) <= 2% at 95% confidence
      expect effect(suppress anger by 50%, on: mean(anger, on: plain), control: 64) <= -10% relative beyond control
      expect firing_rate(0.5 < anger, on: plain) <= 1%
    }
    waive c until 2027-03-31 by "model-risk" because "AUD-14"
  )");
  const CheckDecl& check = rules.checks.at(0);
  CHECK(check.severity == CheckSeverity::critical);
  CHECK(check.annotations.tags == std::vector<std::string>{"eu-ai-act:art-15"});
  CHECK(check.annotations.meta.at(0) == std::pair<std::string, std::string>("owner", "model risk"));
  CHECK(check.annotations.status == Annotations::Status::experimental);
  CHECK(check.under_rules == std::vector<RuleId>{0});
  CHECK(check.under_edits == std::vector<EditId>{0});

  const Expectation& rate = check.expectations.at(0);
  const auto& generated = std::get<metric::Rate>(rate.metric.node);
  CHECK(generated.regex == "(?i)idiot|stupid");
  CHECK(generated.tokens == 40);
  CHECK(generated.samples == 4);
  CHECK(generated.temperature == 0.7);
  CHECK(rate.op == Compare::less_equal);
  CHECK(rate.bound == 0.02);
  CHECK(rate.confidence == 0.95);
  CHECK(rate.text ==
        "rate(angry, generates: /idiot|stupid/i, tokens: 40, samples: 4, temperature: 0.7) <= 2% at 95% confidence");

  const Expectation& causal = check.expectations.at(1);
  const auto& effect = std::get<metric::Effect>(causal.metric.node);
  CHECK(std::get<Intervention>(effect.change).amount == 0.5);
  CHECK(effect.on->text == "mean(anger, on: plain)");
  CHECK(effect.controls == 64);
  CHECK(causal.relative);
  CHECK(causal.beyond_control);

  const auto& firing = std::get<metric::FiringRate>(check.expectations.at(2).metric.node);
  CHECK(firing.op == Compare::greater);
  CHECK(firing.threshold == 0.5);

  const Waiver& waiver = rules.waivers.at(0);
  CHECK(waiver.check == 0);
  CHECK(waiver.until == Date{2027, 3, 31});
  CHECK(waiver.by == "model-risk");
  CHECK(waiver.because == "AUD-14");
}

TEST_CASE("check: attacks in written order, and what an expectation is repeated across") {
  const RuleSet rules = checked(kFeature + R"(
    edit moved { fact "Rome" in "I know that {} lies in" to " Spain"  using rome }
    check c {
      under attack typos(rate: 5%), casing(upper)
      under attack paraphrases(["Say: {}", "{}?"]), distractors(calm, place: after)
      expect perplexity(plain) <= 30 across seeds(4), paraphrases(angry, ["Another"])
    }
    check d { under edit moved  under attack whitespace(double)  expect perplexity(plain) <= 30 across seeds(2) }
  )");
  const CheckDecl& check = rules.checks.at(0);
  REQUIRE(check.under_attacks.size() == 4);
  CHECK(check.under_attacks[0].kind == AttackKind::typos);
  CHECK(check.under_attacks[0].rate == 0.05);
  CHECK(check.under_attacks[0].text == "typos(rate: 5%)");
  CHECK(check.under_attacks[1].form == AttackForm::upper);
  CHECK(check.under_attacks[2].templates == std::vector<std::string>{"Say: {}", "{}?"});
  CHECK(check.under_attacks[3].form == AttackForm::after);
  CHECK(rules.prompts.at(check.under_attacks[3].texts).name == "calm");
  const Across& across = check.expectations.at(0).across;
  CHECK(across.seeds == 4);
  REQUIRE(across.paraphrases.size() == 2);
  CHECK(rules.prompts.at(across.paraphrases[0]).name == "angry");
  CHECK(check.expectations[0].text == "perplexity(plain) <= 30 across seeds(4), paraphrases(angry, [\"Another\"])");
  CHECK(rules.checks.at(1).expectations.at(0).across.seeds == 2);  // rome's prefixes are random
}

TEST_CASE("check: attacks that are searched for on the model, and translations") {
  const RuleSet rules = checked(kFeature + R"(
    check c {
      under attack translations(calm, ["Un", "Deux"]), suffix_search(steps: 20, toward: " Sure")
      under attack perturb(norm: 5%, steps: 3, layer: 4)
      expect perplexity(plain) <= 30 across seeds(2)
    }
    check d { under attack suffix_search(steps: 1, tokens: 3, candidates: 7), perturb(norm: 5%)
              expect perplexity(plain) <= 30 }
  )");
  const auto& attacks = rules.checks.at(0).under_attacks;
  REQUIRE(attacks.size() == 3);
  REQUIRE(attacks[0].translations.size() == 2);
  CHECK(rules.prompts.at(attacks[0].translations[0]).name == "calm");
  CHECK(attacks[0].random());
  CHECK(attacks[1].steps == 20);
  CHECK(attacks[1].tokens == 8);
  CHECK(attacks[1].candidates == 32);
  CHECK(attacks[1].toward == " Sure");
  CHECK(attacks[2].norm == 0.05);
  CHECK(attacks[2].steps == 3);
  CHECK(attacks[2].layer == 4);
  const auto& others = rules.checks.at(1).under_attacks;
  CHECK(others[0].tokens == 3);
  CHECK(others[0].candidates == 7);
  CHECK(others[1].steps == 0);
  CHECK_FALSE(others[1].layer);
}

TEST_CASE("check: what a model must be") {
  const RuleSet rules =
      checked("model { family llama  layers 30  width 576  sha256 \"" + std::string(64, 'A') + "\" }");
  REQUIRE(rules.model);
  CHECK(rules.model->family == "llama");
  CHECK(rules.model->layers == 30);
  CHECK(rules.model->width == 576);
  CHECK(rules.model->sha256 == std::string(64, 'a'));
}

TEST_CASE("check: used declarations are marked and named as their user names them") {
  SourceSet sources;
  const SourceId given =
      sources.add("rules.proviso", "use \"pack.proviso\" as pack\n" + kFeature +
                                       "rule r { suppress anger at mlp_out[3] }\n"
                                       "check c { under rule r, pack.quiet  expect kl(plain) <= 1 }");
  sources.add("pack.proviso", kFeature + "rule quiet { suppress anger }\ncheck unrun { expect kl(plain) <= 1 }");
  const auto outcome = check_sources(sources, {given});
  INFO(render_text(outcome.diagnostics, sources));
  REQUIRE(outcome.value);
  const RuleSet& rules = *outcome.value;
  CHECK(rules.files == std::vector<SourceId>{given});
  REQUIRE(rules.rules.size() == 2);
  CHECK_FALSE(rules.rules[0].imported);
  CHECK(rules.rules[1].imported);
  CHECK(rules.rules[1].name == "pack.quiet");
  REQUIRE(rules.checks.size() == 1);
  CHECK(rules.checks[0].under_rules == std::vector<RuleId>{0, 1});
  CHECK(rules.features.at(rules.rules[1].interventions.at(0).feature).name == "pack.anger");
}

TEST_CASE("check: edits come in the order of the files given, before those that are used") {
  const auto edit = [](const std::string& name) {
    return "edit " + name + " { fact \"Rome\" in \"I know that {} is in\" to \" Italy\"  using rome }\n";
  };
  SourceSet sources;
  const SourceId b = sources.add("b.proviso", "use \"c.proviso\"\n" + edit("third") + edit("first"));
  const SourceId a = sources.add("a.proviso", edit("second"));
  sources.add("c.proviso", edit("used"));
  const auto outcome = check_sources(sources, {b, a});
  REQUIRE(outcome.value);
  std::string order;
  for (const EditDecl& each : outcome.value->edits) order += each.name + " ";
  CHECK(order == "third first second used ");
}

TEST_CASE("contradictions: rules that are first put in force together are compared then") {
  const RuleSet rules = checked(kFeature + R"(
    rule one { clamp anger to 1 }
    rule two { clamp anger to 2 }
    rule three { clamp anger to 1 at resid_post[18..20] })");
  CHECK(contradictions(rules, {0}).empty());
  CHECK(contradictions(rules, {0, 2}).empty());
  CHECK(contradictions(rules, {0, 1}).size() == 1);
  CHECK(contradictions(rules, {0, 1, 2}).size() == 2);
}

}  // namespace proviso::dsl

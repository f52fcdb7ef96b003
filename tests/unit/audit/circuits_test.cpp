// Circuits in audits: their metrics, their place in the report, and their drawings.

#include "audit/circuits.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cctype>
#include <cmath>
#include <map>
#include <string>

#include "audit/audit.hpp"
#include "runtime/circuits/patched_pairs.hpp"
#include "tests/support/schema.hpp"
#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::audit {
namespace {

using test::RulesOnModel;

const std::string kCircuit = R"(
circuit c "What tells a cat from a hat" {
  clean ["The cat sat" -> "a", "A dog ran" -> "b"]  corrupt ["The hat fit" -> "b", "I dig pan" -> "c"]
  measure logit_diff
  using eap_ig(steps: 3)  keep 90% edges
}
circuit small { clean "The cat" corrupt "The hat"  measure logit_diff("a", "b")  using eap  keep 3 edges }
)";

Report audited(RulesOnModel& rules, const std::string& only = "") {
  AuditOptions options;
  options.as_of = {2027, 1, 1};
  options.selection.only = only;
  runtime::Session session(*rules.model.transformer, rules.bound, {});
  auto outcome = audit(session, rules.bound, rules.sources, options);
  REQUIRE(outcome.value);
  outcome.value->model.sha256 = std::string(64, '0');  // the program's part
  CHECK_THAT(tests::schema_violations(to_yaml(*outcome.value, {})), Catch::Equals(""));
  return std::move(*outcome.value);
}

const CircuitResult& circuit_of(const Report& report, const std::string& name) {
  const auto found = std::find_if(report.circuits.begin(), report.circuits.end(),
                                  [&](const CircuitResult& circuit) { return circuit.name == name; });
  REQUIRE(found != report.circuits.end());
  return *found;
}

}  // namespace

TEST_CASE("an audit measures what circuits carry, and the report shows them") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  RulesOnModel rules(kCircuit + R"(
check whole { expect faithfulness(c) >= -1000%  expect completeness(c) <= 1000% }
check none { expect faithfulness(small) >= 1000% }
check sure { expect faithfulness(c) >= -1000% at 95% confidence }
)",
                     json);
  const auto report = audited(rules);
  REQUIRE(report.checks.size() == 3);
  CHECK(report.checks[0].status == Status::pass);
  CHECK(report.checks[1].status == Status::fail);
  CHECK(report.checks[2].status == Status::inconclusive);  // two pairs have no interval

  const auto& circuit = circuit_of(report, "c");
  CHECK(circuit.measure == "logit_diff");
  CHECK(circuit.method == "eap_ig");
  CHECK(circuit.parameters.front() == std::pair<std::string, std::string>("steps", "3"));
  CHECK(circuit.pairs == 2);
  CHECK(circuit.annotations.title == "What tells a cat from a hat");
  const double whole = circuit.m_clean - circuit.m_corrupt;
  const auto& faithful = report.checks[0].expectations[0];
  CHECK(faithful.estimate.value == Approx((circuit.m_circuit - circuit.m_corrupt) / whole));
  CHECK(faithful.estimate.value == Approx(circuit.faithfulness.value));
  CHECK(faithful.estimate.n == 2);
  CHECK(faithful.evidence.size() == 2);
  CHECK(report.checks[0].expectations[1].estimate.value == Approx((circuit.m_without - circuit.m_corrupt) / whole));
  CHECK(circuit.curve.back().share == 1);
  CHECK(circuit.curve.back().faithfulness == Approx(1).margin(1e-3));
  CHECK(std::ssize(circuit.edges) + circuit.pruned == std::llround(0.9 * static_cast<double>(circuit.model_edges)));

  const std::string yaml = to_yaml(report, {});
  CHECK(to_yaml(from_yaml(yaml, "report.yaml"), {}) == yaml);
  CHECK(to_text(report, 100, false).find("Circuits") != std::string::npos);
  CHECK(audited(rules, "none").circuits.size() == 1);
}

TEST_CASE("a circuit of nodes is found, measured, reported and drawn by its nodes") {
  RulesOnModel rules(R"(
circuit heads {
  clean ["The cat sat", "A dog ran"]  corrupt ["The hat fit", "I dig pan"]
  measure logit_diff("a", "b")  using eap  keep 3 nodes
}
circuit patched { clean "The cat" corrupt "The hat"  measure logit_diff("a", "b")  using exact  keep 20% nodes }
check c { expect faithfulness(heads) >= -1000%  expect completeness(patched) <= 1000% }
)");
  const auto report = audited(rules);
  CHECK(report.checks[0].status == Status::pass);
  const auto& heads = circuit_of(report, "heads");
  CHECK(heads.nodes.size() == 3);
  CHECK(*heads.model_nodes == 10);
  CHECK(heads.selection.starts_with("the 3 nodes of largest |score|"));
  CHECK(std::abs(heads.nodes[0].score) >= std::abs(heads.nodes[2].score));
  CHECK(heads.curve.back().nodes == 10);
  CHECK(heads.curve.back().faithfulness == Approx(1).margin(1e-3));
  const auto& patched = circuit_of(report, "patched");
  CHECK(patched.nodes.size() == 2);
  CHECK_FALSE(patched.edges[0].score);

  const std::string yaml = to_yaml(report, {});
  CHECK(to_yaml(from_yaml(yaml, "report.yaml"), {}) == yaml);
  CHECK(to_html(report).find("3 nodes") != std::string::npos);
  const auto dot = circuits_dot(report.circuits);
  INFO(dot);
  CHECK(dot.find("\"" + heads.nodes[0].name + "\" [color=") != std::string::npos);
  const auto text = circuits_text(report.circuits, 2, 100, false);
  INFO(text);
  CHECK(text.find("3 of 10 attention heads and MLPs") != std::string::npos);
  CHECK(text.find("and 1 weaker ones") != std::string::npos);
}

TEST_CASE("a circuit of latents is found, measured in every way, reported and drawn by its nodes") {
  RulesOnModel rules(R"(
feature f = unembed("e") at resid_post[0]
circuit latents {
  clean ["The cat sat", "A dog ran", "One two"]  corrupt ["The hat fit", "Idig pan!", "Six two"]
  measure logit_diff("a", "b")  using eap_ig(steps: 3, sae: "sae")  keep 6 nodes
}
circuit patched { clean "The cat" corrupt "The hat"  measure logit_diff("a", "b")  using exact(sae: "sae")  keep 50% nodes }
circuit heads { clean "The cat" corrupt "The hat"  measure logit_diff("a", "b")  using eap  keep 3 nodes }
rule quiet { suppress f when f > 0 }
edit removed { remove f at mlp_out[0], attn_out[1]  using project  expect faithfulness(latents) >= -100000% }
check loaded {
  expect faithfulness(latents) >= -100000%
  expect completeness(latents) <= 100000%
  expect minimality(latents) >= 0%
  expect stability(latents) >= 0%
  expect overlap(latents, patched) >= 0%
}
check ruled { under rule quiet  expect faithfulness(latents) >= -100000% }
check edited { under edit removed  expect faithfulness(latents) >= -100000% }
check shouted { under attack casing(upper)  expect faithfulness(latents) >= -100000% }
check swept { expect faithfulness(latents) >= -100000% across ablation(zero, mean, resample) }
)",
                     test::tiny_llama_json(), test::tiny_autoencoder_files(test::tiny_card()));
  const auto report = audited(rules);
  for (const auto& check : report.checks) {
    INFO(check.name);
    // Inconclusive where the pairs do not tell clean from corrupt alike.
    CHECK((check.status == Status::pass || check.status == Status::inconclusive));
    for (const auto& expectation : check.expectations) CHECK(std::isfinite(expectation.estimate.value));
  }
  const auto& latents = circuit_of(report, "latents");
  CHECK(latents.nodes.size() == 6);
  CHECK(*latents.model_nodes == 41);
  CHECK(latents.edges.empty());
  CHECK(has_latents(latents));
  CHECK(latents.parameters.back() == std::pair<std::string, std::string>("sae", "sae"));
  CHECK(latents.curve.back().nodes == 41);
  CHECK(latents.curve.back().faithfulness == Approx(1).margin(1e-5));
  CHECK(latents.nodes[0].inclusion);
  CHECK(latents.nodes[0].drop);
  REQUIRE(latents.overlaps.size() == 1);  // heads and MLPs are no parts of it
  CHECK(latents.overlaps[0].circuit == "patched");
  const auto& ruled = report.checks[1].expectations[0];
  CHECK(std::abs(ruled.estimate.value - *ruled.baseline) > 1e-4);

  const std::string yaml = to_yaml(report, {});
  CHECK(to_yaml(from_yaml(yaml, "report.yaml"), {}) == yaml);
  CHECK(to_markdown(report).find("6 of 41 latents and error terms") != std::string::npos);
  const auto dot = circuits_dot({latents});
  INFO(dot);
  CHECK(dot.find("label=\"resid_post[0]\"") != std::string::npos);
  CHECK(dot.find("\"" + latents.nodes[0].name + "\" -> \"logits\" [color=") != std::string::npos);
  const auto html = circuits_html({latents});
  CHECK(html.find("<title>" + latents.nodes[0].name + ": ") != std::string::npos);
  CHECK(html.find(">embed<") == std::string::npos);
  CHECK(to_html(report).find("6 nodes") != std::string::npos);
}

TEST_CASE("circuits are measured under rules, edits and attacks, beside the model as loaded") {
  const std::string text = R"(
feature f = unembed("e") at resid_post[0]
circuit c {
  clean ["The cat sat", "A dog ran", "One two"]  corrupt ["The hat fit", "Idig pan!", "Six two"]
  measure logit_diff("a", "b")  using eap  keep 30% edges
}
circuit one { clean "A dog ran" corrupt "Idig pan!"  measure logit_diff("a", "b")  using eap  keep 30% edges }
rule quiet { suppress f at mlp_out[0], attn_out[1] }
rule never { steer f by 1 when position >= 100 }
edit removed { remove f at mlp_out[0], attn_out[1]  using project  expect faithfulness(c) >= -100000% }
check loaded { expect faithfulness(c) >= -100000%  expect completeness(c) >= -100000% }
check ruled { under rule quiet  expect faithfulness(c) >= -100000%  expect completeness(c) >= -100000% }
check edited { under edit removed  expect faithfulness(c) >= -100000% }
check idle { under rule never  expect faithfulness(c) >= -100000% }
check shouted { under attack casing(upper)  expect faithfulness(c) >= -100000% }
check spaced { under attack whitespace(double)  expect faithfulness(c) >= -100000%  expect faithfulness(one) >= 0% }
check swept { under rule quiet  expect faithfulness(c) >= -100000% across ablation(zero, mean, resample) }
)";
  RulesOnModel rules(text);
  const auto report = audited(rules);
  std::map<std::string, ExpectationResult> first;
  for (const auto& check : report.checks) first[check.name] = check.expectations.front();
  const double loaded = first.at("loaded").estimate.value, ruled = first.at("ruled").estimate.value;
  CHECK_FALSE(first.at("loaded").baseline);
  CHECK(*first.at("ruled").baseline == Approx(loaded));
  CHECK(std::abs(ruled - loaded) > 1e-3);
  CHECK(first.at("ruled").status != Status::vacuous);
  CHECK(std::any_of(report.rule_activity.begin(), report.rule_activity.end(), [](const RuleActivity& each) {
    return each.rule == "quiet" && each.form == "weight edit" && each.positions > 0 && each.relative_change > 0;
  }));
  // The rule folds; as hooks and as an edit it is the same model.
  CHECK(first.at("edited").estimate.value == Approx(ruled).margin(1e-3));
  CHECK(report.edits[0].expectations[0].estimate.value == Approx(ruled).margin(1e-3));
  CHECK(*report.edits[0].expectations[0].baseline == Approx(loaded));
  RulesOnModel again(text);
  AuditOptions unfolded;
  unfolded.as_of = {2027, 1, 1};
  unfolded.passes_off = {"fold"};
  runtime::Session session(*again.model.transformer, again.bound, {});
  const auto hooked = audit(session, again.bound, again.sources, unfolded).value->checks[1].expectations;
  CHECK(hooked[0].estimate.value == Approx(ruled).margin(1e-3));
  CHECK(hooked[1].estimate.value == Approx(report.checks[1].expectations[1].estimate.value).margin(1e-3));
  CHECK(first.at("idle").status == Status::vacuous);
  CHECK(first.at("idle").reason == "rule never changed no vector");

  // The same edges, on the pairs that the attack makes.
  const auto& bound = rules.bound.circuits[0];
  const auto kept = runtime::find_circuit(*rules.model.transformer, rules.rules->circuits[0], bound).kept;
  auto upper = bound;
  for (auto& pair : upper.pairs) {
    for (auto* prompt : {&pair.clean, &pair.corrupt}) {
      std::transform(prompt->text.begin(), prompt->text.end(), prompt->text.begin(),
                     [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      prompt->tokens = rules.bound.tokenizer->encode(prompt->text);
    }
  }
  const auto runs = runtime::run_circuit(runtime::PatchedPairs(*rules.model.transformer, upper), kept);
  double part = 0, whole = 0;
  for (std::size_t i = 0; i < runs.clean.size(); ++i) {
    part += runs.circuit[i] - runs.edgeless[i];
    whole += runs.clean[i] - runs.edgeless[i];
  }
  CHECK(first.at("shouted").estimate.value == Approx(part / whole).margin(1e-4));
  CHECK(first.at("shouted").attacked.front().second == 6);
  CHECK(first.at("shouted").pairs_left_out == 0);
  CHECK(first.at("shouted").evidence.front().prompt.find_first_of("abcdefgh") == std::string::npos);

  CHECK(first.at("spaced").pairs_left_out == 1);
  CHECK(first.at("spaced").estimate.n == 2);
  const auto& none_left = report.checks[5].expectations[1];
  CHECK(none_left.status == Status::vacuous);
  CHECK(none_left.reason == "under attack no pair has two different prompts of equally many tokens");

  const auto& swept = first.at("swept").across->values;
  REQUIRE(swept.size() == 3);
  CHECK(swept[2].first == "ablation resample");
  CHECK(swept[2].second == Approx(ruled));
  CHECK(std::abs(swept[0].second - swept[1].second) > 1e-3);
  CHECK(std::abs(swept[0].second - swept[2].second) > 1e-3);
}

TEST_CASE("nothing to recover leaves faithfulness undecided") {
  // What tells the prompts apart comes after the last token read: nothing, for m is the same to the bit.
  RulesOnModel rules(kCircuit + "check c { expect faithfulness(small) >= 80% }");
  auto& transformer = *rules.model.transformer;
  for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
    const auto name = transformer.writer({dsl::SiteKind::attn_out, layer})->weight;
    transformer.set(name, at::zeros_like(transformer.get(name)));
  }
  const auto report = audited(rules);  // "c" and "h" are not the last tokens, and nothing moves between tokens
  CHECK(circuit_of(report, "small").m_clean == circuit_of(report, "small").m_corrupt);
  CHECK(report.checks[0].status == Status::inconclusive);
}

TEST_CASE("traces are drawn") {
  RulesOnModel rules(kCircuit);
  runtime::Session session(*rules.model.transformer, rules.bound, {});
  AuditOptions options;
  options.selection.only = "small";
  const auto circuits = trace(session, rules.bound, rules.sources, options);
  REQUIRE(circuits.size() == 1);
  const auto text = circuits_text(circuits, 2, 100, false);
  INFO(text);
  CHECK(text.find("small") != std::string::npos);
  const auto dot = circuits_dot(circuits);
  INFO(dot);
  CHECK(dot.starts_with("digraph \"small\" {"));
  CHECK(std::count(dot.begin(), dot.end(), '>') == std::ssize(circuits[0].edges));
  CHECK(circuits_yaml(circuits).starts_with("circuits:\n  - name: small\n"));
  CHECK(circuits_json(circuits).find("\"faithfulness\"") != std::string::npos);
}

TEST_CASE("a circuit is suppressed by a rule, shown to be causal, removed by an edit, and compared") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  RulesOnModel rules(R"(
prompts clean = ["The cat sat", "A dog ran", "Six men"]
prompts corrupt = ["The hat fit", "I dig pan", "Ten men"]
circuit heads {
  clean ["The cat sat", "A dog ran"]  corrupt ["The hat fit", "I dig pan"]
  held clean "Six men"  corrupt "Ten men"
  measure logit_diff("a", "b")  using eap  keep 3 nodes
}
circuit edges {
  clean ["The cat sat", "A dog ran"]  corrupt ["The hat fit", "I dig pan"]
  clean "Six men"  corrupt "Ten men"
  measure logit_diff("a", "b")  using eap_ig(steps: 2, select: greedy)  keep 60 edges
}
rule quiet { suppress circuit heads }
rule cut { suppress circuit edges by 50% }
edit out { remove circuit heads  using ablate(strength: 50%)  expect logit_diff("a", "b", after: clean) >= -100000 }
check causal {
  expect effect(suppress circuit heads, on: logit_diff("a", "b", after: clean), control: 4) >= -100000
  expect effect(suppress circuit edges, on: logit_diff("a", "b", after: clean), control: 4) >= -100000
  expect effect(rule quiet, on: logit_diff("a", "b", after: clean), control: 4) >= -100000
  expect effect(edit out, on: logit_diff("a", "b", after: clean), control: 4) >= -100000
}
check ruled {
  under rule quiet, cut
  expect logit_diff("a", "b", after: clean) >= -100000
  expect rate(clean, generates: /./, tokens: 3) >= 0%
}
check still { under rule quiet  expect completeness(heads) >= -100000% }
check edited { under edit out  expect logit_diff("a", "b", after: clean) >= -100000 }
check parts {
  expect minimality(heads) >= 0%
  expect minimality(edges) >= 0%
  expect stability(edges) >= 0%
  expect overlap(heads, edges) >= 0%
}
)",
                     json);
  const auto report = audited(rules);
  for (const auto& check : report.checks) {
    for (const auto& expectation : check.expectations) {
      INFO(expectation.text << ": " << expectation.reason);
      CHECK(std::isfinite(expectation.estimate.value));
      CHECK(expectation.status == Status::pass);
    }
  }
  const auto& causal = report.checks[0].expectations;
  CHECK(std::abs(causal[0].estimate.value) > 1e-4);
  CHECK(std::abs(causal[1].estimate.value) > 1e-4);
  CHECK(causal[2].estimate.value == Approx(causal[0].estimate.value));
  REQUIRE(causal[0].control);
  CHECK(causal[0].control->n == 4);
  REQUIRE(causal[0].control->wrong_sign);
  CHECK(*causal[0].control->wrong_sign != Approx(causal[0].estimate.value));
  REQUIRE(causal[0].control->positions);
  CHECK(causal[0].control->positions->n == 4);
  CHECK(causal[3].control->wrong_sign);
  CHECK_FALSE(causal[3].control->positions);
  const auto acted = std::find_if(report.rule_activity.begin(), report.rule_activity.end(),
                                  [](const RuleActivity& activity) { return activity.rule == "quiet"; });
  REQUIRE(acted != report.rule_activity.end());
  CHECK(acted->feature == "circuit heads");
  CHECK(acted->relative_change > 0);
  CHECK(acted->relative_change_at_0 == 0);

  const auto& heads = circuit_of(report, "heads");
  CHECK(heads.pairs == 1);
  REQUIRE(heads.found_on);
  CHECK(heads.found_on->pairs == 2);
  REQUIRE(heads.minimality);
  CHECK(heads.nodes[0].drop);
  const auto& edges = circuit_of(report, "edges");
  REQUIRE(edges.stability);
  CHECK(edges.stability->lines.size() == 2);
  CHECK(edges.edges[0].inclusion);
  REQUIRE(edges.overlaps.size() == 1);
  CHECK(edges.overlaps[0].circuit == "heads");
  CHECK(edges.selection.find("grown from the logits") != std::string::npos);
  CHECK(report.checks[4].expectations[3].estimate.value == Approx(edges.overlaps[0].share));
  REQUIRE(report.edits.size() == 1);
  CHECK(report.edits[0].status == Status::pass);

  const std::string yaml = to_yaml(report, {});
  CHECK(to_yaml(from_yaml(yaml, "report.yaml"), {}) == yaml);
  const auto text = circuits_text(report.circuits, 3, 200, false);
  INFO(text);
  CHECK(text.find("found again") != std::string::npos);
  const auto page = circuits_html(report.circuits);
  CHECK(page.find("<svg") != std::string::npos);
  CHECK(page.find("<script") == std::string::npos);
}

TEST_CASE("a patch gives other prompts' activations, whole, in part, and along the direct path") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  RulesOnModel rules(R"(
prompts p = ["The cat sat", "A dog ran"]
prompts q = ["The hat fit", "I dig pan"]
feature f = unembed("e") at resid_post[0]
check patched {
  expect effect(patch embed from q, on: logit_diff("a", "b", after: p), control: 2) >= -100000
  expect effect(patch resid_post[1] from q, on: logit_diff("a", "b", after: p), control: 2) >= -100000
  expect effect(patch final_norm from q, on: logit_diff("a", "b", after: p), control: 2) >= -100000
  expect effect(patch feature f from q, on: logit_diff("a", "b", after: p), control: 2) >= -100000
  expect effect(patch [z[*], mlp_out[*]] from q, on: logit_diff("a", "b", after: p), control: 2) >= -100000
  expect effect(patch mlp_out[1] from q, on: logit_diff("a", "b", after: p), control: 2) >= -100000
  expect effect(patch mlp_out[1] from q, on: logit_diff("a", "b", after: p), control: 2, path: direct) >= -100000
  expect effect(patch z[0] head 1 from q when position >= 1, on: logit_diff("a", "b", after: p), control: 2) >= -100000
  expect effect(patch z[0] head 1 from q, on: logit_diff("a", "b", after: p), control: 2, path: direct) >= -100000
  expect effect(patch mlp_post[0] from zero, on: logit_diff("a", "b", after: p), control: 2) >= -100000
  expect effect(patch attn_out[0] from mean(q), on: rate(p, generates: /./, tokens: 3), control: 2) >= -100%
  expect effect(patch embed from p, on: logit_diff("a", "b", after: p), control: 2) >= -100000
}
check at_q { expect logit_diff("a", "b", after: q) >= -100000 }
check at_p { expect logit_diff("a", "b", after: p) >= -100000 }
)",
                     json);
  const auto report = audited(rules);
  const auto& patched = report.checks[0].expectations;
  const double whole =
      report.checks[1].expectations[0].estimate.value - report.checks[2].expectations[0].estimate.value;
  // All of the input, of the output, and of what the output is read from: the other prompts' number.
  for (std::size_t i = 0; i < 3; ++i) CHECK(patched[i].estimate.value == Approx(whole).margin(1e-4));
  // With every part patched only the embedding stays; of the last MLP all of the path is direct.
  CHECK(patched[5].estimate.value == Approx(patched[6].estimate.value).margin(1e-4));
  for (const std::size_t i : {3, 4, 5, 7, 8, 9}) {
    INFO(patched[i].text);
    CHECK(patched[i].status == Status::pass);
    CHECK(std::abs(patched[i].estimate.value) > 1e-6);
  }
  CHECK(patched[7].estimate.value != Approx(patched[8].estimate.value));
  CHECK(patched.back().status == Status::vacuous);  // a prompt's own activations change nothing
}

}  // namespace proviso::audit

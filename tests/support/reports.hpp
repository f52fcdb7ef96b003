#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "audit/report.hpp"
#include "audit/verdict.hpp"

namespace proviso::tests {

/// A report that uses every key there is, with strings and numbers that are hard to write down.
inline audit::Report report_with_everything() {
  using audit::Status;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto digest = [](char digit) { return std::string(64, digit); };

  audit::Report report;
  report.version = "0.1.0";
  report.program_sha256 = digest('e');
  report.libtorch = "2.13.0";
  report.model = {"SmolLM2-135M-Instruct", "llama", "float32", digest('1'), 134515008};
  report.rules = {{"capitals.proviso", digest('a')}, {"more rules.proviso", digest('b')}};
  report.data = {{"data/angry.txt", digest('f')}};
  report.run = {9007199254740993u, "cpu", "2026-11-23", "tag:nightly", 2, 412, 8123, 30110, 8.4};
  report.run.machine = audit::MachineFacts{"Some(R) Processor @ 2.0 GHz", "Linux 6.1.0 x86_64", 2};
  report.run.merged = {{"shard 1.yaml", digest('2'), "tag:nightly", "cpu", 2, 8.4}};
  report.features = {
      {"anger", "resid_post[18]", "contrast(angry, calm)", -3.25, 1e-7, 24, {{"sink_share_removed", 0.12}}},
      {"unit", "mlp_post[9]", "neuron(512)", 0, 1, 0, {}}};

  audit::ExpectationResult effect;
  effect.text =
      R"(effect(suppress anger, on: rate(angry, generates: /idiot|"stupid"/i)) <= -30% beyond control at 95% confidence)";
  effect.status = Status::fail;
  effect.estimate = {-0.12, 64, audit::Interval{-0.19, -0.04}, 0.95, ""};
  effect.asked_confidence = 0.95;
  effect.baseline = 0.25;
  effect.control = audit::Control{"random directions", 32, -0.01, 0.02, 1, 0.00003, 0.03};
  effect.control->values = {-0.03, -0.01, 0, 0.01};
  effect.evidence = {{"You are late again.\nWhy?", 1.0, 1.0, "You idiot: \"late\""},
                     {"C'est «ça»… \u2028 \x7f 日本", 0.0, 1.0, "stupid"},
                     {"{not: [a, map]} # nor a comment", std::nullopt, 0.1 + 0.2, ""}};

  audit::ExpectationResult across;
  across.text = "accuracy(capitals) >= 90% across seeds(2), ablation(zero, mean)";
  across.status = Status::inconclusive;
  across.reason = "held under 3 of 4 combinations";
  across.estimate = {0.875, 8, std::nullopt, 0.95, "repeated"};
  across.across =
      audit::AcrossResult{4,
                          0.75,
                          {{"seed 0, zero", 1}, {"seed 0, mean", 1}, {"seed 1, zero", 0.875}, {"seed 1, mean", 0.625}},
                          {{"seed 0, zero", Status::pass},
                           {"seed 0, mean", Status::pass},
                           {"seed 1, zero", Status::pass},
                           {"seed 1, mean", Status::fail}}};
  across.baseline = 0.9375;
  across.attacked = {{"typos(rate: 5%)", 7}, {"casing(upper)", 8}};
  across.searched = {{"suffix_search(steps: 20, toward: \" Sure\\n\")",
                      " Sure\n",
                      8,
                      6.25,
                      0.5,
                      {{"The capital of France is !zebra\"", 7.5, 0.25, ""}}},
                     {"perturb(norm: 5%, steps: 3)", "", 8, 0.4, 3.75, {}}};
  across.moved = {{"anger", "resid_post[18]", 0.875, 0.1}};
  across.evaded = audit::Evaded{3, 5};

  audit::ExpectationResult undefined;
  undefined.text = "perplexity(held) <= 20";
  undefined.status = Status::error;
  undefined.reason = "the value is not a number: no prompts";
  undefined.estimate = {std::numeric_limits<double>::quiet_NaN(), 0, std::nullopt, 0.95, "no prompts"};
  undefined.baseline = kInfinity;

  audit::ExpectationResult holds;
  holds.text = "kl(plain) <= 0.1";
  holds.status = Status::pass;
  holds.estimate = {1.25e-5, 200, audit::Interval{0, 1e300}, 0.95, ""};
  holds.sample = audit::PromptNumbers{"mean",
                                      digest('9'),
                                      {0, 1e-6, 2e-6, 4e-6, 6e-6, 8e-6, 1e-5, 5e-5},
                                      {0, 0, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6},
                                      {5, 6, 7, 8, 9, 10, 11, 12},
                                      {0, 0, 1, 1, 2, 2, 3, 3}};

  const auto check = [](std::string name, dsl::CheckSeverity severity, std::string where,
                        std::vector<audit::ExpectationResult> expectations, const dsl::Waiver* waiver = nullptr) {
    audit::CheckResult result;
    result.name = std::move(name);
    result.severity = severity;
    result.where = std::move(where);
    result.expectations = std::move(expectations);
    conclude(result, waiver, {2026, 11, 23});
    return result;
  };
  dsl::Waiver waiver, expired;
  waiver.until = {2027, 3, 31};
  waiver.by = "model-risk";
  waiver.because = "tracked as AUD-14: see \"the register\"";
  expired = waiver;
  expired.until = {2026, 1, 1};
  report.checks = {check("anger_is_causal", dsl::CheckSeverity::critical, "capitals.proviso:47", {effect, holds}),
                   check("stays_calm", dsl::CheckSeverity::minor, "capitals.proviso:52", {across}, &waiver),
                   check("was_waived", dsl::CheckSeverity::info, "capitals.proviso:60", {across}, &expired),
                   check("stays_fluent", dsl::CheckSeverity::major, "more rules.proviso:3", {holds}),
                   check("undefined", dsl::CheckSeverity::info, "more rules.proviso:9", {undefined})};
  report.checks[1].under = {"edit move_eiffel", "rule keep_calm", "attack typos(rate: 5%)", "attack casing(upper)"};
  report.checks[0].annotations.tags = {"eu-ai-act:art-15", "true", "12:30"};
  report.checks[0].annotations.title = "Anger drives the insults";
  report.checks[0].annotations.meta = {{"owner", "red team"}, {"reference", "#12"}};
  report.checks[4].annotations.status = dsl::Annotations::Status::experimental;
  report.checks[4].annotations.description = "Two lines,\nof which this is one.";

  report.rule_activity = {{"keep_calm",
                           "suppress anger by 80% when last anger > 0.5",
                           "anger",
                           "resid_post[18]",
                           "hook",
                           8123,
                           71,
                           0.12,
                           1.5,
                           0.08,
                           0,
                           {{"last anger > 0.5", 70}, {"token is \" not\"", 1}}},
                          {"no_gender_axis",
                           "suppress gender at embed",
                           "gender",
                           "embed",
                           "weight edit",
                           8123,
                           8123,
                           -0.2,
                           0.9,
                           0.01,
                           0.003,
                           {}}};

  audit::EditResult edit;
  edit.name = "move_eiffel";
  edit.where = "capitals.proviso:30";
  edit.method = "rome";
  edit.parameters = {{"layer", "5"}, {"clamp", "4"}, {"variant", "averaged"}};
  edit.changes = {{"model.layers.5.mlp.down_proj.weight", digest('c'), digest('d'), {576, 1536}, 1, 3.5, 0.042}};
  edit.parts = {
      {{{"residual at k*", 1.1e-12}}, {{"logit of \" Rome\"", 4.5}}, {{"efficacy", 1}, {"neighbourhood", 0.9}}},
      {{{"residual at k*", 2.5e-12}}, {}, {{"efficacy", 1}}}};
  edit.costs = {{"perplexity rise", 0.004}, {"kl", 0.0021}};
  audit::ExpectationResult efficacy;
  efficacy.text = "efficacy >= 100%";
  efficacy.status = Status::pass;
  efficacy.estimate = {1, 1, audit::Interval{0.2065, 1}, 0.95, ""};
  edit.expectations = {efficacy};
  edit.status = Status::pass;
  report.edits = {edit};

  audit::ExampleResult fires, silent;
  fires.rule = silent.rule = "keep_calm";
  fires.kind = "fires on";
  silent.kind = "silent on";
  fires.where = "capitals.proviso:24";
  silent.where = "capitals.proviso:25";
  fires.status = Status::pass;
  fires.prompts = fires.fired = 12;
  silent.status = Status::fail;
  silent.prompts = 12;
  silent.fired = 1;
  silent.evidence = {{"A calm prompt", std::nullopt, 1, ""}};
  silent.annotations.status = dsl::Annotations::Status::deprecated;
  silent.conditions = {{"anger > quantile(99%, plain)", 1, 0.81, 0.7, 0.11, 4, "A calm prompt"}};
  report.examples = {fires, silent};
  report.coverage = {3, 2, 5, 4, {"rule keep_calm: `token is \"z\"` holds in no example"}};
  report.annotated = {{"feature anger", "capitals.proviso:12", {"What insults ride on", "", {"eu-ai-act:art-15"}, {}}}};
  return report;
}

}  // namespace proviso::tests

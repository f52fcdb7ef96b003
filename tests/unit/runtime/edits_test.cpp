// Edits on a model: labels that are erased, directions that are taken out.

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include "tests/support/named_number.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

using namespace proviso;
using namespace proviso::runtime;
using test::number;
using test::RulesOnModel;

namespace {

// Two labels of one set of prompts: which letter comes last, and which came before it.
const std::string kPrompts = R"(
prompts ends_a = each start in ["I know ", "They said ", "We heard ", "You saw ", "He told ", "She put "], mid in ["up", "on", "in", "by"] "{start}{mid}xa"
prompts ends_b = each start in ["I know ", "They said ", "We heard ", "You saw ", "He told ", "She put "], mid in ["up", "on", "in", "by"] "{start}{mid}xb"
prompts late_p = each start in ["I know ", "They said ", "We heard ", "You saw ", "He told ", "She put "], mid in ["up", "on", "in", "by"] "{start}{mid}pa"
prompts late_q = each start in ["I know ", "They said ", "We heard ", "You saw ", "He told ", "She put "], mid in ["up", "on", "in", "by"] "{start}{mid}qa"
)";

double gap(const RulesOnModel& rules, const std::string& first, const std::string& second) {
  const auto logits = [&](const std::string& end) {
    at::Tensor sum;
    for (const char* start : {"I know up", "They said on", "We heard in", "You saw by"}) {
      const auto all = test::logits_of(*rules.model.transformer, test::rows_of(*rules.model.tokenizer, {start + end}));
      sum = sum.defined() ? sum + all[-1] : all[-1].clone();
    }
    return sum / 4;
  };
  return (logits(first) - logits(second)).norm().item<double>();
}

}  // namespace

TEST_CASE("an erased label is gone for a linear probe retrained on what is left, and the bias that it made falls") {
  RulesOnModel rules(kPrompts + "edit e { erase [ends_a, ends_b] using leace(threshold: 0%) }\n");
  Session session(*rules.model.transformer, rules.bound, {});
  const auto before = gap(rules, "xa", "xb"), control = gap(rules, "pa", "qa");
  const auto& solved = session.solve({0}).back();
  INFO(solved.refused);
  REQUIRE(solved.certificates.size() == 1);
  const auto& measured = solved.certificates[0].measured;
  // At this random model's end a probe tells 46 of all 48 prompts, and seven of the eight held out.
  CHECK(number(measured, "linear_probe_before") >= 0.875);
  CHECK(number(measured, "linear_probe_after") <= number(measured, "chance") + 0.15);
  CHECK(number(measured, "cross_covariance_left") < 1e-3);
  CHECK(number(measured, "neighbour_probe_before") >= 0.875);
  CHECK(number(measured, "neighbour_probe_after") >= 0);  // no linear map promises what a nonlinear probe finds
  editing::AppliedDeltas applied(*rules.model.transformer);
  for (const auto& delta : solved.deltas) applied.apply(delta);
  CHECK(gap(rules, "xa", "xb") < 0.5 * before);
  CHECK(gap(rules, "pa", "qa") > 0.3 * control);  // another label stays
}

TEST_CASE("two labels erased by one edit are both gone in the end") {
  RulesOnModel rules(kPrompts +
                     "edit e { erase [ends_a, ends_b]  erase [late_p, late_q]  using leace(threshold: 0%) }\n"
                     "edit first { erase [ends_a, ends_b] using leace(threshold: 0%) }\n");
  const auto weights = test::weights_of(*rules.model.transformer);
  Session session(*rules.model.transformer, rules.bound, {});
  const auto& solved = session.solve({0}).back();
  INFO(solved.refused);
  REQUIRE(solved.certificates.size() == 2);
  for (const auto& certificate : solved.certificates) {
    CHECK(number(certificate.measured, "cross_covariance_left") < 1e-3);
    CHECK(number(certificate.measured, "linear_probe_after") <= number(certificate.measured, "chance") + 0.2);
  }
  CHECK(solved.certificates[0].changes.size() == solved.deltas.size());
  CHECK(solved.deltas.size() > session.solve({1}).back().deltas.size());
  CHECK(test::weights_of(*rules.model.transformer) == weights);
}

TEST_CASE("project weighs layers by their distance from the peak, and keeps norms where it is told to") {
  const std::string feature =
      "feature f = contrast([\"The cat sat\", \"A dog ran!\"], [\"One two ten\", \"Six or seven?\"]) at mlp_out[0]\n";
  auto json = test::tiny_llama_json();
  json["num_hidden_layers"] = 3;
  RulesOnModel rules(
      feature +
          "edit weighed { remove f at mlp_out[*], embed  using project(strength: 80%, peak: 2, reach: 2, edge: 40%) }\n"
          "edit kept { remove f at mlp_out[1] using project(norms: keep) }\n"
          "edit beyond { remove f at mlp_out[1] using project(peak: 3, reach: 1) }\n",
      json);
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({0}).empty());
  const auto direction = session.features()[0].d;
  const auto left = [&](const SolvedEdit& solved, std::int64_t layer) {
    const std::string name = "model.layers." + std::to_string(layer) + ".mlp.down_proj.weight";
    const auto before = rules.model.transformer->get(name).to(at::kDouble);
    auto after = before;
    for (const auto& delta : solved.deltas)
      if (delta.tensor == name) after = after.addmm(delta.left, delta.right);
    return (direction.matmul(after).norm() / direction.matmul(before).norm()).item<double>();
  };
  const auto& weighed = session.solve({0}).back();
  INFO(weighed.refused);
  CHECK(left(weighed, 2) == Approx(0.2));                                                           // 80 % at the peak
  CHECK(left(weighed, 1) == Approx(0.4));                                                           // 60 % half way
  CHECK(left(weighed, 0) == Approx(0.6));                                                           // 40 % at the edge
  for (const auto& delta : weighed.deltas) CHECK(delta.tensor.find("embed") == std::string::npos);  // out of reach

  const auto& kept = session.solve({1}).back();
  REQUIRE(kept.deltas.size() == 1);
  const auto before = rules.model.transformer->get(kept.deltas[0].tensor).to(at::kDouble);
  const auto after = before.addmm(kept.deltas[0].left, kept.deltas[0].right);
  CHECK(at::allclose(after.norm(2, 0), before.norm(2, 0), 1e-9, 1e-12));
  CHECK(left(kept, 1) < 1e-9);
  CHECK(session.solve({2}).back().refused.find("beyond the model's last layer") != std::string::npos);
}

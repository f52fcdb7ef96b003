// Faults on a tiny random model: drawn alike by seeds, and what each does to the weights.

#include "runtime/planted_faults.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {
namespace {

using test::RulesOnModel;

const std::string kRules = R"(
prompts p = ["The cat sat", "A dog ran!"]
prompts q = ["One two ten", "Six or seven?"]
feature f = contrast(p, q) at resid_post[1]
)";

/// The model's weights with a fault, by name.
at::Tensor changed(RulesOnModel& rules, const Fault& fault, const std::string& tensor,
                   const std::vector<Direction>& features = {}) {
  auto& transformer = *rules.model.transformer;
  const auto before = test::weights_of(transformer);
  const auto solved = solve_fault(fault, transformer, rules.bound, features, {}, "", 0);
  CHECK(test::weights_of(transformer) == before);
  editing::AppliedDeltas applied(transformer);
  for (const auto& delta : std::get<std::vector<editing::WeightDelta>>(solved)) applied.apply(delta);
  return transformer.get(tensor).to(at::kDouble).clone();
}

std::string writer(RulesOnModel& rules, dsl::SiteKind kind, std::int64_t layer) {
  return rules.model.transformer->writer({kind, layer})->weight;
}

}  // namespace

TEST_CASE("planted faults: a prompt's subject is its last run of capitalised words, else its longest word") {
  CHECK(subject_of("The capital of France is") == "France");
  CHECK(subject_of("The Eiffel Tower is located in the city of") == "Eiffel Tower");
  CHECK(subject_of("Where did Marie Curie, the physicist, work? In") == "In");
  CHECK(subject_of("It was Paris, France that") == "France");
  CHECK(subject_of("Water boils at a temperature of") == "temperature");
  CHECK(subject_of("He said \"Rome\" and") == "Rome");
  CHECK(subject_of("Hello") == "");
  CHECK(subject_of("") == "");
  CHECK(subject_of("- ... !") == "");
}

TEST_CASE("planted faults: a silenced head writes nothing, and the others as before") {
  RulesOnModel rules(kRules);
  const auto name = writer(rules, dsl::SiteKind::attn_out, 1);
  const auto before = rules.model.transformer->get(name).to(at::kDouble).clone();
  const auto head_dim = rules.bound.card->config.head_dim;
  const auto after = changed(rules, {FaultKind::head, "1 head", "", SilencedHeads{1, {2}}}, name);
  auto expected = before.clone();
  expected.narrow(1, 2 * head_dim, head_dim).zero_();
  CHECK(at::equal(after, expected));
}

TEST_CASE("planted faults: noise has the share of the norm that is asked for, and is drawn alike") {
  RulesOnModel rules(kRules);
  const auto name = writer(rules, dsl::SiteKind::mlp_out, 0);
  const auto before = rules.model.transformer->get(name).to(at::kDouble).clone();
  const Fault fault{FaultKind::noise, "30%", "", WeightNoise{0, 0.3, 5}};
  const auto after = changed(rules, fault, name);
  CHECK(((after - before).norm() / before.norm()).item<double>() == Approx(0.3).epsilon(1e-5));
  CHECK(at::equal(changed(rules, fault, name), after));
}

TEST_CASE("planted faults: a removed direction is written by no layer, a tripled one three times as much") {
  RulesOnModel rules(kRules);
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({0}).empty());
  const auto& d = session.features()[0].d;
  for (const double factor : {0.0, 3.0}) {
    for (const auto kind : {dsl::SiteKind::attn_out, dsl::SiteKind::mlp_out}) {
      const auto name = writer(rules, kind, 1);
      const auto before = d.matmul(rules.model.transformer->get(name).to(at::kDouble));
      const auto after = d.matmul(
          changed(rules, {FaultKind::direction, "", "", ScaledDirection{0, factor}}, name, session.features()));
      CHECK(at::allclose(after, factor * before, 1e-4, 1e-6));
    }
  }
}

TEST_CASE("planted faults: equal seeds draw equal faults, and what cannot be drawn is told") {
  RulesOnModel rules(kRules);
  FaultSettings settings;
  for (int i = 0; i < kFaultKinds; ++i) settings.kinds.insert(static_cast<FaultKind>(i));
  const auto drawn = [&](std::uint64_t seed, const AuditedThings& audited) {
    settings.seed = seed;
    return choose_faults(*rules.model.transformer, rules.bound, audited, settings);
  };
  const AuditedThings audited{{0, 1}, {0}};
  const auto names = [](const ChosenFaults& chosen) {
    std::string all;
    for (const auto& fault : chosen.faults) all += fault.strength + " " + fault.what + "; ";
    return all;
  };
  const auto first = drawn(1, audited);
  CHECK(names(first) == names(drawn(1, audited)));
  CHECK(names(first) != names(drawn(2, audited)));
  // Two of every kind and strength that can be: one feature, and no expected continuation.
  CHECK(first.faults.size() == 2 + 2 * 2 + 3 * 2);
  REQUIRE(first.left_out.size() == 2);
  CHECK(first.left_out[0].first == FaultKind::fact);
  CHECK(first.left_out[1].first == FaultKind::trigger);
  CHECK(drawn(1, {{0}, {}}).left_out.size() == 3);
}

}  // namespace proviso::runtime

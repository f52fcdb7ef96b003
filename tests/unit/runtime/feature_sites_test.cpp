// How features are built beyond a plain contrast: sites chosen on held-out prompts, whitening, principal components and
// subspaces.

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "runtime/features/choose_sites.hpp"
#include "runtime/features/separation.hpp"
#include "runtime/features/two_sides.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {
namespace {

std::string list(const std::vector<std::string>& texts) {
  std::string text = "[";
  for (const auto& each : texts) text += (text.size() > 1 ? ", " : "") + ("\"" + each + "\"");
  return text + "]";
}

const std::vector<std::string> kHigh = {"abcd", "badc", "cabx", "dcba", "acbz", "bacd", "cadb", "dabc", "abdz", "bcaz"};
const std::vector<std::string> kLow = {"mnop", "nmpo", "omnx", "ponm", "monz", "nmop", "opnm", "pmno", "mnpz", "noma"};

std::string sides() { return "prompts high = " + list(kHigh) + "\nprompts low = " + list(kLow) + "\n"; }

/// The activation at each prompt's last token.
at::Tensor activations(test::RulesOnModel& rules, dsl::FeatureId feature, dsl::PromptsId set) {
  PlanBuilder builder(rules.bound);
  std::vector<SequenceId> ids;
  for (const auto& prompt : rules.bound.prompts[set]) {
    ids.push_back(builder.sequence(prompt));
    builder.want_feature(builder.loaded(), ids.back(), feature);
  }
  const auto evidence = rules.carry_out(optimise(builder.take(), rules.bound, {}));
  std::vector<double> values;
  for (const auto id : ids) values.push_back(evidence.at(0, id).features.at(feature).back());
  return at::tensor(values, at::kDouble);
}

dsl::Outcome<BoundRules> chosen(const test::RulesOnModel& rules) {
  return choose_sites(rules.bound, *rules.model.transformer, {0}, "", {});
}

double standard_deviation(const at::Tensor& x) { return x.std(0, /*unbiased=*/true).item<double>(); }

}  // namespace

TEST_CASE("the best of several sites is the one that tells a held-out pair apart best") {
  const std::string held = "prompts a = " + list({"xabc", "ybad", "zcab", "wdca"}) +
                           "\nprompts b = " + list({"xmno", "ynmp", "zomn", "wpon"}) + "\n";
  const test::RulesOnModel rules(sides() + held +
                                 "feature f = contrast(high, low) at resid_post[0..1] select best on (a, b)\n");
  const auto outcome = chosen(rules);
  REQUIRE(outcome.value);
  const auto& selection = outcome.value->selections.at(0);
  REQUIRE(selection.scores.size() == 2);
  CHECK(selection.chosen);
  CHECK(selection.folds == 0);
  CHECK(selection.held_out == 8);
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    // The same by features that name their layer, read through hooks.
    test::RulesOnModel fixed(sides() + held + "feature f = contrast(high, low) at resid_post[" + std::to_string(layer) +
                             "]\n");
    const auto told = separation(activations(fixed, 0, 2).unsqueeze(1), activations(fixed, 0, 3).unsqueeze(1));
    CHECK(selection.scores[layer].auroc == Approx(told.aurocs[0].item<double>()));
    CHECK(selection.scores[layer].separation == Approx(told.distances[0].item<double>()).epsilon(1e-4));
  }
  const auto better = [](const SiteSelection::Score& one, const SiteSelection::Score& other) {
    return std::pair(one.auroc, one.separation) < std::pair(other.auroc, other.separation);
  };
  CHECK(outcome.value->feature_sites[0] == std::ranges::max_element(selection.scores, better)->site);
}

TEST_CASE("without a pair, each prompt is scored by a direction that it did not build") {
  const test::RulesOnModel rules(sides() + "feature f = probe(high, low) at resid_post[0..1] select best\n");
  const auto outcome = chosen(rules);
  REQUIRE(outcome.value);
  const auto& selection = outcome.value->selections.at(0);
  CHECK(selection.folds == 5);
  CHECK(selection.held_out == 20);
  std::vector<at::Tensor> high, low;
  for (std::size_t fold = 0; fold < 5; ++fold) {
    const auto split = [&](const std::vector<std::string>& all, bool held) {
      std::vector<std::string> some;
      for (std::size_t i = 0; i < all.size(); ++i) {
        if ((i % 5 == fold) == held) some.push_back(all[i]);
      }
      return list(some);
    };
    test::RulesOnModel one("prompts high = " + split(kHigh, false) + "\nprompts low = " + split(kLow, false) +
                           "\nprompts a = " + split(kHigh, true) + "\nprompts b = " + split(kLow, true) +
                           "\nfeature f = probe(high, low) at resid_post[1]\n");
    high.push_back(activations(one, 0, 2));
    low.push_back(activations(one, 0, 3));
  }
  const auto told = separation(at::cat(high).unsqueeze(1), at::cat(low).unsqueeze(1));
  CHECK(selection.scores[1].auroc == Approx(told.aurocs[0].item<double>()));
  CHECK(selection.scores[1].separation == Approx(told.distances[0].item<double>()).epsilon(1e-3));
}

TEST_CASE("features are not built before their sites are chosen") {
  const test::RulesOnModel rules(sides() + "feature f = contrast(high, low) at resid_post[0..1] select best\n");
  CHECK(sites_open(rules.bound, {0}));
  CHECK_THROWS_AS(Session(*rules.model.transformer, rules.bound, {}).build({0}), std::logic_error);
  const auto outcome = chosen(rules);
  REQUIRE(outcome.value);
  CHECK_FALSE(sites_open(*outcome.value, {0}));
  Session session(*rules.model.transformer, *outcome.value, {});
  CHECK(session.build({0}).empty());
  CHECK(session.features()[0].site == outcome.value->feature_sites[0]);
  CHECK(session.built_tokens() > 80);  // choosing is counted: 20 prompts of 4 tokens, twice
}

TEST_CASE("a whitened contrast is the direction that LEACE reads, where the difference of means is led astray") {
  constexpr std::int64_t kWidth = 6, kCount = 400;
  auto mix = at::eye(kWidth, at::kDouble);
  mix[0][1] = 3;  // what tells the sides apart varies with a coordinate that does not
  const auto noise = test::random_tensor({2 * kCount, kWidth}, 3).to(at::kDouble).mm(mix);
  auto shift = at::zeros({kWidth}, at::kDouble);
  shift[1] = 1;
  const SideVectors both{noise.narrow(0, 0, kCount) + shift, noise.narrow(0, kCount, kCount)};
  const auto covariance =
      mix.t().mm(mix) * noise.var().item<double>() / mix.t().mm(mix).diagonal().mean().item<double>();
  const auto wanted = at::linalg_solve(covariance, shift);
  const auto white = whitening(both);
  const auto cosine = [&](const at::Tensor& d) { return (d.dot(wanted) / (d.norm() * wanted.norm())).item<double>(); };
  CHECK(cosine(SideDirection{false, white.W, {}}(both)) > 0.99);
  CHECK(cosine(SideDirection{false, {}, {}}(both)) < 0.5);
  CHECK(cosine(SideDirection{true, white.W, {}}(both)) > 0.98);
  // W W Σ = 1 for a covariance that needs no shrinking.
  const auto exact = whitening(covariance, 1000000);
  CHECK(at::allclose(exact.W.mm(covariance).mm(exact.W), at::eye(kWidth, at::kDouble), 1e-3, 1e-3));
}

TEST_CASE("what a feature is whitened by shows in its measures, and sinks stay out of it") {
  const test::RulesOnModel rules(sides() +
                                 "prompts plain = [\"some text of bytes\", \"another line of text\"]\n"
                                 "feature f = contrast(high, low, whiten: covariance(plain)) at resid_post[1]\n"
                                 "feature g = probe(high, low, whiten: sides) at resid_post[1]\n"
                                 "feature h = contrast(high, low) at resid_post[1]\n");
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({0, 1, 2}).empty());
  const auto named = [&](dsl::FeatureId id, const std::string& name) {
    const auto& measures = session.features()[id].measures;
    const auto found = std::ranges::find(measures, name, [](const auto& each) { return each.first; });
    REQUIRE(found != measures.end());
    return found->second;
  };
  for (const dsl::FeatureId id : {0, 1}) {
    CHECK(named(id, "whitening_shrinkage") >= 0);
    CHECK(named(id, "whitening_shrinkage") <= 1);
    const auto& feature = session.features()[id];
    CHECK(feature.d.norm().item<double>() == Approx(1));
    CHECK(feature.c > 0);
  }
  CHECK(std::abs(session.features()[0].d.dot(session.features()[2].d).item<double>()) < 0.9999);
  for (const dsl::FeatureId id : {0, 1, 2}) {
    CHECK(named(id, "drawn_halves_cosine_least") <= named(id, "drawn_halves_cosine"));
    CHECK(named(id, "drawn_halves_cosine") <= 1 + 1e-12);
  }
}

TEST_CASE("drawn halves keep clusters whole, and agree where there is no noise") {
  const auto x = at::arange(8, at::kDouble).unsqueeze(1).expand({8, 3}).contiguous();
  const SideVectors both{at::ones({8, 3}, at::kDouble) + 1, at::ones({8, 3}, at::kDouble)};
  const std::vector<std::int64_t> own = {0, 1, 2, 3, 4, 5, 6, 7}, few = {0, 0, 0, 0, 1, 1, 1, 1};
  const SideDirection means;
  const auto exact = stability(means, both, own, own);
  CHECK(exact.draws == kStabilityDraws);
  CHECK(exact.least == Approx(1));
  CHECK(exact.mean == Approx(1));
  CHECK(stability(means, both, few, own).draws == 0);  // two clusters have no halves to compare
  CHECK(stability(means, {x + 5, x}, own, own).mean < 1 + 1e-12);
}

TEST_CASE("a principal component is 0 at the mean and 1 a standard deviation above it") {
  test::RulesOnModel rules(sides() +
                           "feature one = component(high, 1) at resid_post[1]\n"
                           "feature two = component(high, 2) at resid_post[1]\n");
  const auto first = activations(rules, 0, 0), second = activations(rules, 1, 0);
  for (const auto& values : {first, second}) {
    CHECK(values.mean().item<double>() == Approx(0).margin(1e-4));
    CHECK(standard_deviation(values) == Approx(1).epsilon(1e-3));
  }
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({0, 1}).empty());
  const auto& features = session.features();
  CHECK(features[0].d.dot(features[1].d).item<double>() == Approx(0).margin(1e-9));
  CHECK(features[0].c > features[1].c);
  for (const auto& feature : features) CHECK(feature.d[feature.d.abs().argmax()].item<double>() > 0);
  CHECK(features[0].measures[0].first == "variance_share");
  CHECK(features[0].measures[1].second == Approx(features[1].measures[0].second));  // the next one's
}

TEST_CASE("suppressing a subspace suppresses its features at once, at a site and in the weights") {
  const std::string features = sides() +
                               "feature f = contrast(high, low) at resid_post[0]\n"
                               "feature g = unembed(\"p\") at resid_post[0]\n"
                               "feature s = subspace(f, g)\n";
  const auto logits = [&](const std::string& sentences, const std::set<std::string>& off) {
    test::RulesOnModel rules(features + "rule r {\n" + sentences + "\n}\n");
    PlanBuilder builder(rules.bound);
    const auto state = builder.state({}, {0});
    const auto sequence = builder.sequence(rules.bound.prompts[1][0]);
    for (std::int64_t id = 0; id < 20; ++id) builder.want_logits(state, sequence, 3, id);
    const auto evidence = rules.carry_out(optimise(builder.take(), rules.bound, off));
    std::vector<double> values;
    for (const auto& [id, token] : evidence.at(state, sequence).logits.at(3).tokens) values.push_back(token.logit);
    return at::tensor(values, at::kDouble);
  };
  const auto as_features = logits("suppress f by 60% when position >= 1\n suppress g by 60% when position >= 1", {});
  CHECK(at::equal(logits("suppress s by 60% when position >= 1", {}), as_features));
  CHECK_FALSE(at::allclose(logits("suppress f by 60% when position >= 1", {}), as_features));

  const auto folded = logits("suppress s at mlp_out[*], attn_out[*], embed", {});
  CHECK(at::allclose(folded, logits("suppress s at mlp_out[*], attn_out[*], embed", {"fold"}), 1e-4, 1e-4));
  CHECK_FALSE(at::allclose(folded, logits("suppress f at mlp_out[*], attn_out[*], embed", {}), 1e-4, 1e-4));

  test::RulesOnModel rules(features);
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({2}).empty());
  const auto& space = session.features()[2];
  CHECK(space.built());
  CHECK(space.basis.size(0) == 2);
  CHECK(at::allclose(space.basis.mm(space.basis.t()), at::eye(2, at::kDouble)));
}

TEST_CASE("removing a subspace leaves nothing along any of its features") {
  test::RulesOnModel rules(sides() +
                           "feature f = contrast(high, low) at resid_post[0]\n"
                           "feature g = unembed(\"p\") at resid_post[0]\n"
                           "feature s = subspace(f, g) at mlp_out[0]\n"
                           "edit e { remove s at mlp_out[0]  using project }\n");
  Session session(*rules.model.transformer, rules.bound, {});
  PlanBuilder builder(rules.bound);
  builder.state({0}, {});
  REQUIRE(session.build(builder.plan().features).empty());
  const auto& solved = session.solve({0}).front();
  REQUIRE(solved.refused.empty());
  const auto& model = *rules.model.transformer;
  const auto weight = model.get(model.writer({dsl::SiteKind::mlp_out, 0, -1})->weight);
  auto changed = weight.to(at::kDouble);
  for (const auto& delta : solved.deltas) {
    if (delta.left.size(0) == changed.size(0) && delta.right.size(1) == changed.size(1))
      changed = changed + delta.left.mm(delta.right);
  }
  for (const dsl::FeatureId id : {0, 1})
    CHECK(session.features()[id].d.matmul(changed).norm().item<double>() < 1e-5 * weight.norm().item<double>());
}

}  // namespace proviso::runtime

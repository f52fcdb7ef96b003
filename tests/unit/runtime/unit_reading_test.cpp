// Neurons and latents read all at once, against the language's own reading of each.

#include "runtime/features/unit_reading.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "runtime/features/logit_weights.hpp"
#include "runtime/features/separation.hpp"
#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {

TEST_CASE("all neurons and latents of a site read as features of them do") {
  test::RulesOnModel rules(R"(
prompts texts = ["The cat sat on a mat", "A dog", "One two ten", "Six or seven?"]
feature unit = neuron(5) at mlp_post[1]
feature of_sae = latent(7, sae: "sae")
)",
                           test::tiny_llama_json(), test::tiny_autoencoder_files(test::tiny_card()));
  const auto& texts = rules.bound.prompts[0];
  PlanBuilder builder(rules.bound);
  for (const auto& prompt : texts)
    for (dsl::FeatureId id : {0, 1}) builder.want_feature(0, builder.sequence(prompt), id);
  const auto plan = optimise(builder.take(), rules.bound, {});
  const auto evidence = rules.carry_out(plan);

  const auto& card = rules.bound.autoencoders.begin()->second;
  const std::vector<UnitSite> sites = {{{dsl::SiteKind::mlp_post, 1, -1}, nullptr},
                                       {card.site, Autoencoder::load(card, at::kCPU)}};
  const std::int64_t unit[] = {5, 7};
  using Kind = dsl::TokenChoice::Kind;
  for (const auto kind : {Kind::last, Kind::all}) {
    const auto readings = read_units(*rules.model.transformer, texts, sites, kind);
    REQUIRE(readings.size() == 2);
    for (std::size_t site = 0; site < 2; ++site) {
      CHECK_FALSE(readings[site].sink);
      for (std::size_t i = 0; i < texts.size(); ++i) {
        const auto& seen = evidence.at(0, i);
        const auto& values = seen.features.at(site);
        const auto& counts = seen.ordinary.at(site);
        double sum = 0, count = 0;
        for (std::size_t at = 0; at < values.size(); ++at) {
          if (!counts[at]) continue;
          sum += values[at];
          ++count;
        }
        const double expected = kind == Kind::last ? values.back() : sum / count;
        CHECK(readings[site].values[static_cast<std::int64_t>(i)][unit[site]].item<double>() ==
              Approx(expected).epsilon(1e-4).margin(1e-6));
      }
    }
  }
  // A prompt of one token is all sink.
  BoundPrompts one = {texts[0], texts[1]};
  one[1].tokens.resize(1);
  CHECK(read_units(*rules.model.transformer, one, sites, Kind::last)[0].sink == 1);
}

TEST_CASE("columns are told apart by rank, and by distance in standard deviations") {
  const auto p = at::tensor({2.0, 1.0, 3.0, 1.0}, at::kDouble).view({2, 2});
  const auto q = at::tensor({1.0, 1.0, 2.0, 1.0}, at::kDouble).view({2, 2});
  const auto [aurocs, distances] = separation(p, q);
  CHECK(aurocs[0].item<double>() == Approx(7.0 / 8));  // of four pairs three are won and one is tied
  CHECK(aurocs[1].item<double>() == Approx(0.5));
  CHECK(distances[0].item<double>() == Approx(2.0));
  CHECK(distances[1].item<double>() == 0);
}

TEST_CASE("a unit of a feature in the stream is what the model adds for it") {
  const test::RandomModel model;
  const auto& t = *model.transformer;
  // At a scale of 2 a unit of activation is two units along the direction.
  const auto vector_at = [&](dsl::Site site, std::int64_t width, std::int64_t unit) {
    Direction feature;
    feature.site = site;
    feature.d = at::zeros({width}, at::kDouble);
    feature.d[unit] = 1;
    feature.c = 2;
    return unit_in_stream(t, feature);
  };
  const auto down = t.get(t.writer({dsl::SiteKind::mlp_out, 1, -1})->weight).to(at::kDouble);
  CHECK(at::allclose(vector_at({dsl::SiteKind::mlp_post, 1, -1}, 24, 3), 2 * down.select(1, 3)));
  const auto out = t.get(t.writer({dsl::SiteKind::attn_out, 0, -1})->weight).to(at::kDouble);
  CHECK(at::allclose(vector_at({dsl::SiteKind::z, 0, 2}, 4, 1), 2 * out.select(1, 2 * 4 + 1)));
  CHECK_FALSE(vector_at({dsl::SiteKind::q, 0, -1}, 16, 1).defined());
  const auto raised =
      logit_weights(t, vector_at({dsl::SiteKind::resid_post, 0, -1}, 16, 2), {dsl::SiteKind::resid_post, 0, -1}, 4);
  CHECK(raised.raises.size() == 4);
  CHECK(raised.raises[0].second > raised.raises[3].second);
  CHECK(raised.lowers[0].second < raised.lowers[3].second);
}

}  // namespace proviso::runtime

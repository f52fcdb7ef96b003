#include "runtime/cost.hpp"

#include <catch2/catch.hpp>

#include "runtime/model/model_config.hpp"

namespace proviso::runtime {
namespace {

model::ModelConfig smollm() {
  model::ModelConfig config;
  config.layers = 30;
  config.width = 576;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.neurons = 1536;
  config.vocabulary = 49152;
  return config;
}

TEST_CASE("a pass costs two operations for each weight that a token meets") {
  const PassCost cost(smollm());
  // 30 layers of 576 · (576 + 192 + 192 + 576) and 3 · 576 · 1536 weights.
  CHECK(cost.token() == 2.0 * 30 * (576 * 1536 + 3 * 576 * 1536));
  CHECK(cost.logits() == 2.0 * 576 * 49152);
  CHECK(cost.pair() == 4.0 * 30 * 576);
}

TEST_CASE("what sequences share is computed once, and a pass that stops costs less") {
  Plan plan;
  plan.sequences = {{{1, 2, 3, 4}, 4, ""}, {{1, 2, 5}, 3, ""}};
  Run run;
  run.wants[0].logits[3] = {};
  run.wants[1].firing = true;
  run.batches = {{{0, 1}, 2}};
  const auto work = PassCost::work(run, plan);
  CHECK(work.tokens == 5);  // two shared, two, and one
  CHECK(work.pairs == 3 + 7 + 3);
  CHECK(work.logits == 1);
  run.batches = {{{0}, 0}, {{1}, 0}};
  CHECK(PassCost::work(run, plan).tokens == 7);
  CHECK(PassCost::work(run, plan).pairs == 10 + 6);

  const PassCost cost(smollm());
  const PassCost::Work one{1, 1, 0};
  const double whole = cost.of(one, std::nullopt);
  CHECK(whole == cost.token() + cost.pair());
  CHECK(cost.of(one, dsl::Site{dsl::SiteKind::embed, -1, -1}) == 0);
  CHECK(cost.of(one, dsl::Site{dsl::SiteKind::resid_post, 29, -1}) == whole);
  CHECK(cost.of(one, dsl::Site{dsl::SiteKind::resid_post, 14, -1}) == whole / 2);
  CHECK(cost.of(one, dsl::Site{dsl::SiteKind::attn_out, 0, -1}) == 2.0 * 576 * 1536 + 4 * 576);
}

}  // namespace
}  // namespace proviso::runtime

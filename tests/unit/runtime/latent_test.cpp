// Latents of sparse autoencoders in rules.

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "runtime/autoencoders/splice.hpp"
#include "runtime/hooks.hpp"
#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {
namespace {

constexpr std::int64_t kWidth = 16;
const dsl::Site kSite{dsl::SiteKind::resid_post, 0, -1};

const std::string kFeatures = R"(
feature f = latent(3, sae: "sae")
feature g = latent(17, sae: "sae")
feature p = unembed("p") at resid_post[0]
)";

/// A pass over twelve tokens, the rows of one text.
struct TwelveTokens {
  explicit TwelveTokens(const HookProgram& program) : pass(program), memory(program.conditions().begin_row("")) {
    layout.rows = {{0, 12, 0, 12}};
    layout.tokens = at::full({12}, 'a', at::kLong);
    pass.begin({&memory});
  }

  HookPass pass;
  RowMemory memory;
  model::PackedLayout layout;
};

struct Written {
  at::Tensor x, y;
  std::vector<Direction> features;
};

/// What sentences make of twelve vectors, the rows of one text.
Written written(const std::string& sentences, const AutoencoderCard& card, double size = 1) {
  test::RulesOnModel rules(kFeatures + "rule all {\n" + sentences + "\n}\n", test::tiny_llama_json(),
                           test::tiny_autoencoder_files(card));
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({0, 1, 2}).empty());
  HookProgram program(session.features(), *rules.bound.card);
  for (const auto& sentence : rules.rules->rules[0].interventions) {
    program.add(sentence, {kSite}, false, [&](const std::string& text) { return rules.bound.token_id(text); }, {});
  }
  program.finish(at::kCPU);
  TwelveTokens tokens(program);
  Written result;
  result.x = (test::random_tensor({12, kWidth}, 11) * size).to(at::kFloat);
  result.y = result.x.clone();
  tokens.pass.visit(kSite, result.y, tokens.layout);
  result.features = session.features();
  return result;
}

bool close(const at::Tensor& a, const at::Tensor& b) {
  return at::allclose(a.to(at::kDouble), b.to(at::kDouble), 1e-5, 1e-5);
}

}  // namespace

TEST_CASE("a latent changes by its activation times its decoder row, and the rest stays to the bit") {
  auto card = test::tiny_card(
      GENERATE(Architecture::standard, Architecture::jumprelu, Architecture::gated, Architecture::topk));
  card.norm = GENERATE(InputNorm::none, InputNorm::constant_norm_rescale, InputNorm::layer_norm);
  CAPTURE(architecture_name(card.architecture), static_cast<int>(card.norm));
  const auto seen = written("suppress f by 80%", card);
  const auto& autoencoder = *seen.features[0].latent->autoencoder;
  const auto encoded = autoencoder.encode(seen.x);
  const auto activation = encoded.activations.select(1, 3);
  const auto scale = encoded.scale.defined() ? encoded.scale : at::ones({12});
  CHECK(close(seen.y, seen.x - 0.8 * (activation * scale).unsqueeze(1) * autoencoder.decoder_row(3)));
  std::int64_t fired = 0;
  for (std::int64_t i = 0; i < 12; ++i) {
    const bool fires = activation[i].item<float>() > 0;
    fired += fires;
    CHECK((test::bytes_of(seen.x[i]) != test::bytes_of(seen.y[i])) == fires);
  }
  CHECK(fired > 0);
  CHECK(fired < 12);
}

TEST_CASE("latents change first, and directions are then solved for on the result") {
  const auto seen = written("suppress f\n steer g by 2\n clamp p to 1.5", test::tiny_card());
  const auto& autoencoder = *seen.features[0].latent->autoencoder;
  const auto f = autoencoder.encode(seen.x).activations;
  const auto between =
      seen.x - f.select(1, 3).unsqueeze(1) * autoencoder.decoder_row(3) + 2 * autoencoder.decoder_row(17).unsqueeze(0);
  const auto& d = seen.features[2].d;
  const auto missing = 1.5 - between.to(at::kDouble).matmul(d);
  CHECK(close(seen.y, between.to(at::kDouble) + missing.unsqueeze(1) * d));
  CHECK(close(seen.y.to(at::kDouble).matmul(d), at::full({12}, 1.5, at::kDouble)));
}

TEST_CASE("a cap on a latent acts only where it is exceeded") {
  const auto seen = written("cap f to 0.4", test::tiny_card(Architecture::standard));
  const auto& autoencoder = *seen.features[0].latent->autoencoder;
  const auto activation = autoencoder.encode(seen.x).activations.select(1, 3);
  for (std::int64_t i = 0; i < 12; ++i) {
    const bool exceeded = activation[i].item<float>() > 0.4F;
    CHECK((test::bytes_of(seen.x[i]) != test::bytes_of(seen.y[i])) == exceeded);
  }
  const auto over = (activation - 0.4).relu();
  CHECK(close(seen.y, seen.x - over.unsqueeze(1) * autoencoder.decoder_row(3)));
}

TEST_CASE("an unconditional sentence on a latent stays a hook and says why") {
  const dsl::Site site{dsl::SiteKind::mlp_out, 0, -1};
  test::RulesOnModel rules("feature f = latent(3, sae: \"sae\")\nrule r { suppress f }\n", test::tiny_llama_json(),
                           test::tiny_autoencoder_files(test::tiny_card(Architecture::jumprelu, site)));
  PlanBuilder builder(rules.bound);
  const auto state = builder.state({}, {0});
  const Plan plan = optimise(builder.take(), rules.bound, {});
  const auto& sentence = plan.states[state].sentences[0];
  CHECK(sentence.folds.empty());
  REQUIRE(sentence.hooks.size() == 1);
  CHECK((sentence.hooks[0] == site));
  CHECK(sentence.why == "a latent's activation depends on its encoder");
}

TEST_CASE("a transcoder's latent is read at one site and changes what is written at another") {
  const dsl::Site read{dsl::SiteKind::resid_mid, 0, -1}, written{dsl::SiteKind::mlp_out, 0, -1};
  auto card = test::tiny_card(GENERATE(Architecture::transcoder, Architecture::skip_transcoder), read);
  card.written = written;
  test::RulesOnModel rules(R"(
feature f = latent(3, sae: "sae")
feature p = unembed("p") at mlp_out[0]
rule r { suppress f by 80%  clamp p to 1.5 when f > 0.2 }
)",
                           test::tiny_llama_json(), test::tiny_autoencoder_files(card));
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({0, 1}).empty());
  HookProgram program(session.features(), *rules.bound.card);
  for (const auto& sentence : rules.rules->rules[0].interventions) {
    const auto sites = rules.bound.sites_of(sentence);
    REQUIRE((sites == std::vector{written}));
    program.add(sentence, sites, false, [&](const std::string& text) { return rules.bound.token_id(text); }, {});
  }
  program.finish(at::kCPU);
  TwelveTokens tokens(program);
  const auto before = test::random_tensor({12, kWidth}, 11).to(at::kFloat);
  auto stream = before.clone();
  tokens.pass.visit(read, stream, tokens.layout);
  CHECK(test::bytes_of(stream) == test::bytes_of(before));

  const auto out = test::random_tensor({12, kWidth}, 12).to(at::kFloat);
  auto changed = out.clone();
  tokens.pass.visit(written, changed, tokens.layout);
  const auto& features = session.features();
  const auto activation = features[0].latent->autoencoder->encode(before).activations.select(1, 3);
  auto expected =
      (out - 0.8 * activation.unsqueeze(1) * features[0].latent->autoencoder->decoder_row(3)).to(at::kDouble);
  const auto missing = (1.5 - expected.matmul(features[1].d)) * activation.gt(0.2).to(at::kDouble);
  missing[0] = 0;  // a sentence whose condition reads a feature does not act there
  CHECK(close(changed, expected + missing.unsqueeze(1) * features[1].d));
  CHECK(activation.gt(0.2).sum().item<std::int64_t>() > 0);
  for (std::int64_t i = 0; i < 12; ++i) {
    if (activation[i].item<float>() == 0) CHECK(test::bytes_of(changed[i]) == test::bytes_of(out[i]));
  }
}

TEST_CASE("where a transcoder reads no write is folded") {
  auto card = test::tiny_card(Architecture::transcoder, {dsl::SiteKind::attn_out, 0, -1});
  card.written = {dsl::SiteKind::mlp_out, 0, -1};
  test::RulesOnModel rules(R"(
feature f = latent(3, sae: "sae")
feature p = unembed("p") at attn_out[0]
rule r { suppress f  suppress p }
)",
                           test::tiny_llama_json(), test::tiny_autoencoder_files(card));
  PlanBuilder builder(rules.bound);
  const auto state = builder.state({}, {0});
  const Plan plan = optimise(builder.take(), rules.bound, {});
  CHECK(plan.states[state].sentences[1].folds.empty());
  CHECK(plan.states[state].sentences[1].why == "a feature is read at attn_out[0]");
}

TEST_CASE("conditions read latents at every position but the first") {
  test::RulesOnModel rules(R"(
prompts texts = ["The cat sat on the mat", "A dog ran"]
feature f = latent(3, sae: "sae")
rule r { steer f by 1 when f >= 0 }
)",
                           test::tiny_llama_json(), test::tiny_autoencoder_files(test::tiny_card()));
  PlanBuilder builder(rules.bound);
  const auto state = builder.state({}, {0});
  const auto sequence = builder.sequence(rules.bound.prompts[0][0]);
  builder.want_feature(state, sequence, 0);
  const auto evidence = rules.carry_out(optimise(builder.take(), rules.bound, {}));
  const auto& seen = evidence.at(state, sequence);
  CHECK(seen.fired[0] == 21);
  CHECK(seen.changed[0] == 21);
  CHECK(seen.features.at(0).size() == 22);
}

TEST_CASE("a reconstruction without error recovers all of the loss, and the mean none") {
  const test::RandomModel model;
  const std::vector<std::string> texts = {"The cat sat on the mat", "A dog ran over the hill and far away"};
  const auto rows = test::rows_of(*model.tokenizer, texts);
  auto card = test::tiny_card(Architecture::standard);
  card.d_sae = 2 * kWidth;
  Autoencoder::Weights w;
  const auto both_signs = at::cat({at::eye(kWidth), -at::eye(kWidth)});
  w.W_enc = w.W_dec = both_signs;
  w.b_enc = at::zeros({card.d_sae});
  w.b_dec = test::random_tensor({kWidth}).to(at::kFloat);
  const auto clean = text_losses(*model.transformer, rows);
  const Autoencoder exact(card, w);
  const auto spliced = spliced_losses(*model.transformer, exact, rows);
  CHECK(loss_recovered(clean, spliced) == Approx(1).margin(1e-4));
  CHECK(spliced[0].ablated != Approx(clean[0]));

  // The mean over ordinary positions, put there by an autoencoder that knows nothing else.
  struct Mean : model::SiteVisitor {
    bool wants(const dsl::Site& site) const override { return site == kSite; }
    void visit(const dsl::Site&, at::Tensor& x, const model::PackedLayout& layout) override {
      for (const auto& row : layout.rows) {
        sum = sum + x.narrow(0, row.begin + 1, row.length - 1).sum(0);
        count += row.length - 1;
      }
    }
    at::Tensor sum = at::zeros({kWidth});
    std::int64_t count = 0;
  } mean;
  model::Pass pass;
  pass.rows = &rows;
  pass.visitor = &mean;
  pass.stop_after = kSite;
  model.transformer->forward(pass);
  w.W_dec = at::zeros_like(both_signs);
  w.b_dec = mean.sum / mean.count;
  const auto averaged = spliced_losses(*model.transformer, Autoencoder(card, w), rows);
  CHECK(loss_recovered(clean, averaged) == Approx(0).margin(1e-4));
}

}  // namespace proviso::runtime

#include "editing/fold.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;
using dsl::Site;
using dsl::SiteKind;
using editing::FoldRequest;

namespace {

/// Three features: `suppress by 80 %` with an offset, `clamp`, `steer`. The third direction leans on the first.
FoldRequest three_features() {
  auto D = random_tensor({3, 16});
  D[2].add_(D[0]);
  D = D / D.norm(2, 1, true);
  const auto numbers = [](std::vector<double> values) { return at::tensor(values, at::kDouble); };
  return {D, numbers({0.2, 0, 1}), numbers({0, 1.5, 2}), numbers({0.7, 0, 0}), numbers({1.3, 0.4, 2})};
}

/// The definition itself, at a site: what a hook does.
class Hook : public model::SiteVisitor {
 public:
  Hook(const FoldRequest& request, Site site) : request_(request), site_(site) {}
  bool wants(const Site& site) const override { return site == site_; }
  void visit(const Site&, at::Tensor& x, const model::PackedLayout&) override {
    x = editing::least_change_write(request_, x).to(x.dtype());
  }

 private:
  const FoldRequest& request_;
  Site site_;
};

std::vector<editing::WeightDelta> folded(const FoldRequest& request, const model::Transformer& transformer, Site site) {
  auto result = editing::fold(request, transformer, site);
  REQUIRE(std::holds_alternative<std::vector<editing::WeightDelta>>(result));
  return std::get<std::vector<editing::WeightDelta>>(std::move(result));
}

}  // namespace

TEST_CASE("a least-change write gives every feature its target and moves along the directions only") {
  const auto request = three_features();
  const auto y = random_tensor({10, 16}, 5);
  const auto x = editing::least_change_write(request, y);
  const auto calibrated = [&](const at::Tensor& at) {
    return (at.mm(request.directions.t()) - request.zeros) / request.scales;
  };
  CHECK(at::allclose(calibrated(x), request.gains * calibrated(y) + request.targets, 1e-10, 1e-10));
  // Least change: nothing of it is orthogonal to the span of the directions.
  const auto change = x - y;
  const auto projector = at::linalg_pinv(request.directions).mm(request.directions);
  CHECK(at::allclose(change.mm(projector), change, 1e-10, 1e-10));
}

TEST_CASE("a direction named twice is removed once") {
  const auto d = three_features().directions.narrow(0, 0, 1);
  const auto y = random_tensor({4, 16}, 5);
  const auto once = editing::least_change_write(editing::removal(d, 1), y);
  CHECK(at::allclose(editing::least_change_write(editing::removal(at::cat({d, d}), 1), y), once, 1e-10, 1e-10));
  CHECK(at::allclose(once.mm(d.t()), at::zeros({4, 1}, at::kDouble), 0, 1e-12));
}

TEST_CASE("folded weights answer as the hook does") {
  const auto family = GENERATE(as<std::string>(), "llama", "llama with biases", "gpt2", "gpt_neox", "gpt_neox in turn",
                               "mistral", "qwen2", "qwen3", "gemma2");
  const auto site = GENERATE(Site{SiteKind::mlp_out, 1}, Site{SiteKind::attn_out, 0}, Site{SiteKind::embed});
  const bool offset = GENERATE(true, false);
  auto json = tiny_json(family.substr(0, family.find(' ')));
  if (family == "gpt_neox in turn") json.update({{"use_parallel_residual", false}, {"attention_bias", false}});
  if (family == "llama with biases") json.update({{"attention_bias", true}, {"mlp_bias", true}});
  if (family == "llama") json["tie_word_embeddings"] = true;
  CAPTURE(family, dsl::to_string(site), offset);

  RandomModel random(json);
  auto& transformer = *random.transformer;
  auto request = three_features();
  if (!offset) request = editing::removal(request.directions, 0.6);
  const auto rows = rows_of(*random.tokenizer, {"Some words to read.", "Others"});
  Hook hook(request, site);
  const auto hooked = logits_of(transformer, rows, &hook);
  const auto plain = logits_of(transformer, rows);

  if (family == "gemma2" && site.kind != SiteKind::embed) {  // what is written there passes a norm
    CHECK(std::holds_alternative<editing::Refusal>(editing::fold(request, transformer, site)));
    return;
  }
  const bool without_bias =
      family == "mistral" || family == "qwen2" || (family == "qwen3" && site.kind == SiteKind::mlp_out);
  if (offset && site.kind != SiteKind::embed && without_bias) {
    const auto refused = editing::fold(request, transformer, site);
    REQUIRE(std::holds_alternative<editing::Refusal>(refused));
    CHECK(std::get<editing::Refusal>(refused).reason ==
          "it adds a constant to " + dsl::to_string(site) + ", whose map has no bias in this family");
    return;
  }
  const auto deltas = folded(request, transformer, site);
  editing::AppliedDeltas applied(transformer);
  for (const auto& delta : deltas) {
    CHECK(delta.left.size(1) <= 3);
    CHECK(applied.apply(delta));
  }
  const auto weights = logits_of(transformer, rows);
  CHECK((weights - hooked).abs().max().item<double>() < 1e-4);
  CHECK((plain - hooked).abs().max().item<double>() > 1e-2);
  if (site.kind == SiteKind::embed) CHECK(deltas.size() == (family == "gpt2" ? 2 : 1));
}

TEST_CASE("a removal needs no bias, a steer makes one") {
  RandomModel random;
  const Site site{SiteKind::attn_out, 1};
  auto request = editing::removal(three_features().directions, 1);
  CHECK(folded(request, *random.transformer, site).size() == 1);
  request.gains.fill_(1);
  request.targets.fill_(2);
  const auto deltas = folded(request, *random.transformer, site);
  REQUIRE(deltas.size() == 1);
  CHECK(deltas[0].tensor == "model.layers.1.self_attn.o_proj.bias");
}

TEST_CASE("what changes nothing folds to nothing") {
  RandomModel random;
  CHECK(folded(editing::removal(three_features().directions, 0), *random.transformer, {SiteKind::mlp_out, 0}).empty());
  CHECK(folded(editing::removal(three_features().directions, 0), *random.transformer, {SiteKind::embed}).empty());
}

TEST_CASE("a site that no linear map writes is refused with the reason") {
  RandomModel random;
  const auto result =
      editing::fold(editing::removal(three_features().directions, 1), *random.transformer, {SiteKind::resid_post, 1});
  REQUIRE(std::holds_alternative<editing::Refusal>(result));
  CHECK(std::get<editing::Refusal>(result).reason == "resid_post[1] is not written by a linear map alone");
}

TEST_CASE("norms that are kept are those of what each input writes, and the direction stays out") {
  const RandomModel random;
  const auto& transformer = *random.transformer;
  const auto D = random_tensor({1, 16}).div(random_tensor({1, 16}).norm());
  const Site site = GENERATE(Site{SiteKind::mlp_out, 1}, Site{SiteKind::embed});
  const auto kept = editing::norms_kept(folded(editing::removal(D, 1), transformer, site), transformer, site);
  REQUIRE(kept.size() == 1);
  const auto before = transformer.get(kept[0].tensor).to(at::kDouble);
  const auto after = before.addmm(kept[0].left, kept[0].right);
  const bool rows = site.kind == SiteKind::embed;
  CHECK(at::allclose(after.norm(2, rows ? 1 : 0), before.norm(2, rows ? 1 : 0), 1e-10, 1e-12));
  CHECK((rows ? after.mm(D.t()) : D.mm(after)).abs().max().item<double>() < 1e-12);
  CHECK_FALSE(at::allclose(after, before, 1e-3, 1e-3));
}

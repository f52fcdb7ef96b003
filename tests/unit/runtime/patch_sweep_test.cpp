// Sweeps of activation patching, held to patching by hand.

#include "runtime/circuits/patch_sweep.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tests/support/random_model.hpp"

namespace proviso::runtime {
namespace {

using dsl::Site;
using dsl::SiteKind;

nlohmann::json any_family() { return GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json()); }

BoundPair pair_of(const model::Tokenizer& tokenizer, const std::string& clean, const std::string& corrupt) {
  BoundPair pair;
  pair.clean.tokens = tokenizer.encode(clean);
  pair.corrupt.tokens = tokenizer.encode(corrupt);
  pair.raised = tokenizer.encode("a").front();
  pair.lowered = tokenizer.encode("b").front();
  return pair;
}

/// Keeps every activation, and puts one of another run's in its place.
struct ByHand : model::SiteVisitor {
  std::map<Site, at::Tensor> kept;
  const ByHand* other = nullptr;
  SweptPatch patch;
  std::int64_t head_dim = 0;
  bool wants(const Site& site) const override {
    return site.kind == SiteKind::embed || site.kind == SiteKind::resid_post || site.kind == SiteKind::z ||
           site.kind == SiteKind::mlp_out;
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    if (other && site == dsl::whole(patch.site)) {
      const bool head = patch.site.head >= 0;
      const auto begin = head ? patch.site.head * head_dim : 0, width = head ? head_dim : x.size(1);
      x[patch.position].narrow(0, begin, width).copy_(other->kept.at(site)[patch.position].narrow(0, begin, width));
    }
    kept[site] = x.clone();
  }
};

double m_of(const model::Transformer& transformer, const BoundPair& pair, const std::vector<std::int64_t>& tokens,
            ByHand& visitor) {
  const auto last = test::logits_of(transformer, {{tokens, std::ssize(tokens)}}, &visitor)[-1];
  return (last[pair.raised] - last[pair.lowered]).item<double>();
}

}  // namespace

TEST_CASE("a swept patch is the same activation patched by hand in a whole pass") {
  const test::RandomModel tiny(any_family());
  const auto& transformer = *tiny.transformer;
  const auto pair = pair_of(*tiny.tokenizer, "The cat sat on it", "The cat fit on it");
  REQUIRE(pair.clean.tokens.size() == pair.corrupt.tokens.size());
  const at::NoGradGuard no_grad;
  ByHand clean, corrupt;
  const double m_clean = m_of(transformer, pair, pair.clean.tokens, clean);
  const double m_corrupt = m_of(transformer, pair, pair.corrupt.tokens, corrupt);
  const PatchSweep sweep(transformer, pair, false);
  CHECK(sweep.clean() == Approx(m_clean).margin(1e-5));
  CHECK(sweep.corrupt() == Approx(m_corrupt).margin(1e-5));
  REQUIRE(sweep.first_difference() > 0);

  for (const SiteKind kind : {SiteKind::resid_pre, SiteKind::z, SiteKind::mlp_out}) {
    const auto patches = PatchSweep::all(kind, transformer.config(), sweep.length());
    const auto m = sweep.run(patches);
    REQUIRE(m.size() == patches.size());
    double largest = 0;
    for (std::size_t i = 0; i < patches.size(); ++i) {
      ByHand patched;
      patched.other = &clean;
      patched.patch = patches[i];
      patched.head_dim = transformer.config().head_dim;
      INFO(dsl::to_string(patches[i].site) << " at " << patches[i].position);
      CHECK(m[i] == Approx(m_of(transformer, pair, pair.corrupt.tokens, patched)).margin(2e-5));
      if (patches[i].position < sweep.first_difference()) CHECK(m[i] == sweep.corrupt());
      largest = std::max(largest, std::abs(m[i] - sweep.corrupt()));
    }
    CHECK(largest > 1e-3);
  }
  // Patching every position of the stream by itself at the first layer's one differing token restores the clean prompt.
  std::vector<SweptPatch> first = {{{SiteKind::embed}, sweep.first_difference()}};
  std::int64_t differing = 0;
  for (std::size_t i = 0; i < pair.clean.tokens.size(); ++i)
    differing += pair.clean.tokens[i] != pair.corrupt.tokens[i];
  if (differing == 1) CHECK(sweep.run(first).front() == Approx(m_clean).margin(2e-5));
}

TEST_CASE("a screened sweep tells what is large as the exact one does") {
  const test::RandomModel tiny(test::tiny_llama_json());
  const auto pair = pair_of(*tiny.tokenizer, "The cat sat on it", "The hat fit on it");
  const PatchSweep exact(*tiny.transformer, pair, false);
  const auto patches = PatchSweep::all(SiteKind::resid_pre, tiny.transformer->config(), exact.length());
  const auto m = exact.run(patches);
  // The screening model is the same one, its unembedding off by a little.
  const test::RandomModel other(test::tiny_llama_json());
  auto unembedding = other.transformer->get(other.transformer->unembedding_name()).clone();
  unembedding += 1e-3 * at::randn(unembedding.sizes());
  other.transformer->set(other.transformer->unembedding_name(), unembedding);
  const PatchSweep rough(*other.transformer, pair, false);
  const auto screened = screen(exact, rough, patches, 0.2, 7);
  CHECK(screened.error > 0);
  CHECK(screened.sampled > 0);
  const double whole = std::abs(exact.clean() - exact.corrupt());
  for (std::size_t i = 0; i < patches.size(); ++i) {
    INFO(dsl::to_string(patches[i].site) << " at " << patches[i].position);
    CHECK(screened.large[i] == (std::abs(m[i] - exact.corrupt()) >= 0.2 * whole));
    CHECK(screened.m[i] == Approx(m[i]).margin(screened.error + 1e-4));
  }
}

}  // namespace proviso::runtime

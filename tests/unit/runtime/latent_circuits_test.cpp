// Circuits of latents and error terms on tiny random models: what patching and attribution say, held to other ways of
// computing the same.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/autoencoders/activations.hpp"
#include "runtime/circuits/find_circuit.hpp"
#include "runtime/circuits/latent_pairs.hpp"
#include "runtime/model/sinks.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/runtime/near_prompts.hpp"

namespace proviso::runtime {
namespace {

using dsl::Site;
using dsl::SiteKind;
using Texts = std::vector<std::pair<std::string, std::string>>;

const Texts kTexts = {{"The cat sat", "The hat fit"}, {"A dog", "I dig"}};

BoundCircuit pairs_of(const model::Tokenizer& tokenizer, const Texts& texts) {
  BoundCircuit circuit;
  for (const auto& [clean, corrupt] : texts) {
    BoundPair pair;
    pair.clean.tokens = tokenizer.encode(clean);
    pair.corrupt.tokens = tokenizer.encode(corrupt);
    pair.clean.cluster = std::ssize(circuit.pairs);
    pair.raised = tokenizer.encode("a").front();
    pair.lowered = tokenizer.encode("b").front();
    circuit.pairs.push_back(pair);
  }
  return circuit;
}

/// The same with the prompts of each pair changed about.
BoundCircuit turned(BoundCircuit circuit) {
  for (auto& pair : circuit.pairs) std::swap(pair.clean, pair.corrupt);
  return circuit;
}

/// Random autoencoders of these sites.
Autoencoders at_sites(const std::vector<Site>& sites, const model::ModelCard& card,
                      Architecture architecture = Architecture::jumprelu, InputNorm norm = InputNorm::none) {
  Autoencoders all;
  for (const Site& site : sites) {
    AutoencoderCard of = test::tiny_card(architecture, site);
    of.norm = norm;
    of.rescales_by_decoder_norm = architecture == Architecture::topk;
    of.d_in = of.d_out = card.site_width(site);
    all.push_back(std::make_shared<const Autoencoder>(test::tiny_autoencoder(of)));
  }
  return all;
}

LatentPairs latent_pairs(const model::Transformer& transformer, const Autoencoders& autoencoders,
                         const BoundCircuit& circuit, dsl::Ablation ablation = dsl::Ablation::resample) {
  return {transformer, LatentNodes(autoencoders), circuit.pairs, circuit.probability, ablation};
}

/// Changes what stands at sites, by hand, and keeps what it sees.
struct ByHand : model::SiteVisitor {
  std::map<Site, std::function<void(at::Tensor&)>> changes;
  std::map<Site, at::Tensor> seen;
  bool wants(const Site& site) const override {
    return site.kind == SiteKind::embed || site.kind == SiteKind::resid_post || site.kind == SiteKind::z ||
           site.kind == SiteKind::mlp_out || site.kind == SiteKind::attn_out || site.kind == SiteKind::resid_mid;
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    seen[site] = x.clone();
    if (const auto change = changes.find(site); change != changes.end()) {
      x = x.clone();
      change->second(x);
    }
  }
};

double m_of(const model::Transformer& transformer, const BoundPair& pair, const std::vector<std::int64_t>& tokens,
            model::SiteVisitor& visitor) {
  const auto last = test::logits_of(transformer, {{tokens, std::ssize(tokens)}}, &visitor)[-1];
  return (last[pair.raised] - last[pair.lowered]).item<double>();
}

std::vector<std::uint8_t> ordinary_of(const ByHand& run, const Site& site, const model::ModelConfig& config) {
  const at::Tensor norms = run.seen.at(model::sink_site(dsl::whole(site), config)).norm(2, 1).contiguous();
  return model::ordinary_positions({norms.const_data_ptr<float>(), static_cast<std::size_t>(norms.numel())});
}

/// Some nodes of all, the same on every machine.
at::Tensor some_of(std::int64_t count, std::uint64_t seed) { return test::random_tensor({count}, seed).gt(0); }

}  // namespace

TEST_CASE(
    "with all latents and error terms kept m is the clean prompt's, and with none the corrupt one's, to the bit") {
  const test::RandomModel tiny(GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json()));
  const auto architecture = GENERATE(Architecture::jumprelu, Architecture::topk, Architecture::standard);
  const auto sites = GENERATE(std::vector<Site>{{SiteKind::resid_post, 0}}, std::vector<Site>{{SiteKind::embed}},
                              std::vector<Site>{{SiteKind::mlp_out, 0}, {SiteKind::resid_post, 1}});
  const auto autoencoders = at_sites(sites, tiny.transformer->card(), architecture);
  const auto circuit = pairs_of(*tiny.tokenizer, kTexts);
  const auto pairs = latent_pairs(*tiny.transformer, autoencoders, circuit);
  CHECK(pairs.measure(pairs.all()) == pairs.clean());
  // The last site is the whole stream, so all that follows is the corrupt prompt's.
  CHECK(pairs.edgeless() == latent_pairs(*tiny.transformer, autoencoders, turned(circuit)).clean());
  for (std::size_t i = 0; i < circuit.pairs.size(); ++i) {
    ByHand plain;
    CHECK(pairs.clean()[i] ==
          Approx(m_of(*tiny.transformer, circuit.pairs[i], circuit.pairs[i].clean.tokens, plain)).margin(1e-5));
    CHECK(std::abs(pairs.clean()[i] - pairs.edgeless()[i]) > 1e-4);
  }
}

TEST_CASE("latents and error terms left out become what stands in their place, by whatever ablation") {
  const test::RandomModel tiny(GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json()));
  const auto& transformer = *tiny.transformer;
  const auto& config = transformer.config();
  const std::vector<Site> sites = {{SiteKind::z, 0, 1}, {SiteKind::attn_out, 0}, {SiteKind::resid_post, 0}};
  const auto ablation = GENERATE(dsl::Ablation::resample, dsl::Ablation::zero, dsl::Ablation::mean);
  using Kind = std::pair<Architecture, InputNorm>;
  const auto [architecture, norm] =
      GENERATE(Kind{Architecture::jumprelu, InputNorm::none}, Kind{Architecture::gated, InputNorm::layer_norm},
               Kind{Architecture::topk, InputNorm::constant_norm_rescale});
  const auto autoencoders = at_sites(sites, transformer.card(), architecture, norm);
  const auto circuit = pairs_of(*tiny.tokenizer, kTexts);
  const auto pairs = latent_pairs(transformer, autoencoders, circuit, ablation);
  const at::NoGradGuard no_grad;
  const auto part = [&](std::size_t i, const at::Tensor& x) {
    const auto at = site_part(transformer.card(), sites[i]);
    return x.narrow(1, at.begin, at.width);
  };

  std::vector<ByHand> clean(circuit.pairs.size()), corrupt(circuit.pairs.size());
  for (std::size_t p = 0; p < circuit.pairs.size(); ++p) {
    m_of(transformer, circuit.pairs[p], circuit.pairs[p].clean.tokens, clean[p]);
    m_of(transformer, circuit.pairs[p], circuit.pairs[p].corrupt.tokens, corrupt[p]);
  }
  /// [positions, latents] in decoder rows, without those of sinks of either prompt.
  const auto latents = [&](std::size_t i, std::size_t p, const at::Tensor& x) {
    const auto encoded = autoencoders[i]->encode(part(i, x));
    at::Tensor f = encoded.activations.clone();
    if (encoded.scale.defined()) f.mul_(encoded.scale.unsqueeze(1));
    const auto a = ordinary_of(clean[p], sites[i], config), b = ordinary_of(corrupt[p], sites[i], config);
    for (std::int64_t j = 0; j < f.size(0); ++j) {
      if (!a[static_cast<std::size_t>(j)] || !b[static_cast<std::size_t>(j)]) f[j].zero_();
    }
    return f;
  };
  for (const std::uint64_t seed : {5, 6, 7}) {
    const at::Tensor kept = some_of(pairs.nodes().count(), seed);
    const auto measured = pairs.measure(kept);
    for (std::size_t p = 0; p < circuit.pairs.size(); ++p) {
      ByHand patched;
      for (std::size_t i = 0; i < sites.size(); ++i) {
        const Site whole = dsl::whole(sites[i]);
        const at::Tensor W_dec = autoencoders[i]->decoder_rows();
        // What stands in: x̂ and f̂.
        at::Tensor other = part(i, corrupt[p].seen.at(whole)).clone(),
                   f_other = latents(i, p, corrupt[p].seen.at(whole));
        if (ablation == dsl::Ablation::zero) {
          // Decoded is what the latents write, and what is added to it.
          const at::Tensor x = part(i, clean[p].seen.at(whole));
          const auto encoded = autoencoders[i]->encode(x);
          at::Tensor written = encoded.activations.matmul(W_dec);
          if (encoded.scale.defined()) written = written * encoded.scale.unsqueeze(1);
          other = autoencoders[i]->decode(x, encoded) - written;
          f_other.zero_();
        } else if (ablation == dsl::Ablation::mean) {
          at::Tensor first = at::zeros({other.size(1)}, at::kDouble), others = at::zeros_like(first),
                     f = at::zeros({f_other.size(1)}, at::kDouble);
          for (std::size_t q = 0; q < circuit.pairs.size(); ++q) {
            const at::Tensor x = part(i, clean[q].seen.at(whole)).to(at::kDouble),
                             of_q = latents(i, q, clean[q].seen.at(whole)).to(at::kDouble);
            const auto a = ordinary_of(clean[q], sites[i], config), b = ordinary_of(corrupt[q], sites[i], config);
            first += x[0] / static_cast<double>(circuit.pairs.size());
            at::Tensor sum = at::zeros_like(others), f_sum = at::zeros_like(f);
            int counted = 0;
            for (std::int64_t j = 0; j < x.size(0); ++j) {
              if (!a[static_cast<std::size_t>(j)] || !b[static_cast<std::size_t>(j)]) continue;
              sum += x[j];
              f_sum += of_q[j];
              ++counted;
            }
            others += sum / counted / static_cast<double>(circuit.pairs.size());
            f += f_sum / counted / static_cast<double>(circuit.pairs.size());
          }
          const auto a = ordinary_of(clean[p], sites[i], config), b = ordinary_of(corrupt[p], sites[i], config);
          for (std::int64_t j = 0; j < other.size(0); ++j) {
            other[j].copy_(j == 0 ? first : others);
            f_other[j].copy_(a[static_cast<std::size_t>(j)] && b[static_cast<std::size_t>(j)] ? f : at::zeros_like(f));
          }
        }
        patched.changes[whole] = [&, i, p, W_dec, other, f_other](at::Tensor& x) {
          at::Tensor here = part(i, x);
          const at::Tensor f = latents(i, p, x), error = here - f.matmul(W_dec),
                           error_other = other - f_other.matmul(W_dec);
          const auto out = kept.narrow(0, pairs.nodes().first(i), pairs.nodes().latents(i)).logical_not();
          at::Tensor change = ((f_other - f) * out.to(at::kFloat)).matmul(W_dec);
          if (!kept[pairs.nodes().error(i)].item<bool>()) change = change + (error_other - error);
          here.add_(change);
        };
      }
      INFO(dsl::ablation_name(ablation) << " seed " << seed << " pair " << p);
      CHECK(measured[p] ==
            Approx(m_of(transformer, circuit.pairs[p], circuit.pairs[p].clean.tokens, patched)).margin(2e-5));
    }
  }
}

TEST_CASE("attribution to latents is what patching them does where the model is linear between the prompts") {
  const test::RandomModel tiny(GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json()));
  bring_near(*tiny.transformer, *tiny.tokenizer, "c", "h", 1e-4);
  bring_near(*tiny.transformer, *tiny.tokenizer, "d", "D", 1e-4);
  // Without thresholds: a latent that starts to fire is not linear.
  const auto sites = GENERATE(std::vector<Site>{{SiteKind::resid_post, 0}},
                              std::vector<Site>{{SiteKind::mlp_out, 0}, {SiteKind::z, 1, 2}});
  const auto autoencoders = at_sites(sites, tiny.transformer->card(), Architecture::standard);
  const auto pairs = latent_pairs(*tiny.transformer, autoencoders,
                                  pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat sat"}, {"A d", "A D"}}));
  const auto exact = pairs.brute_force();
  const double size = exact.abs().max().item<double>();
  CHECK(size > 1e-6);
  CHECK(exact.ne(0).sum().item<std::int64_t>() > 5);
  for (const std::int64_t steps : {0, 4}) {
    const auto scores = pairs.attribution(steps);
    INFO("steps " << steps);
    CHECK((scores - exact).abs().max().item<double>() < 0.05 * size);
    CHECK((scores * exact).sum().item<double>() > 0.999 * scores.norm().item<double>() * exact.norm().item<double>());
  }
  // Each by itself is what leaving it out does.
  for (std::int64_t node = 0; node < pairs.nodes().count(); node += 7) {
    at::Tensor kept = pairs.all();
    kept[node] = false;
    INFO(pairs.nodes().name(node));
    CHECK(mean(pairs.measure(kept)) - mean(pairs.clean()) == Approx(exact[node].item<double>()).margin(1e-6));
  }
}

TEST_CASE("scores along the path add up to what corrupting the whole stream changes") {
  const test::RandomModel tiny(GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json()));
  const auto autoencoders = at_sites({{SiteKind::resid_post, 0}}, tiny.transformer->card());
  const auto pairs = latent_pairs(*tiny.transformer, autoencoders, pairs_of(*tiny.tokenizer, kTexts));
  const double change = mean(pairs.edgeless()) - mean(pairs.clean());
  CHECK(std::abs(change) > 1e-2);
  CHECK(pairs.attribution(400).sum().item<double>() == Approx(change).epsilon(0.03));
}

TEST_CASE("gradients are those at the clean prompt, or at steps from the corrupt one on") {
  const test::RandomModel tiny(GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json()));
  const auto& transformer = *tiny.transformer;
  const Site site{SiteKind::resid_post, 0};
  const auto autoencoders = at_sites({site}, transformer.card());
  const auto circuit = pairs_of(*tiny.tokenizer, kTexts);
  const auto pairs = latent_pairs(transformer, autoencoders, circuit);
  const at::NoGradGuard no_grad;
  // What m changes by on the way to the corrupt stream, so far from it (0) to the clean one (1), for the whole of it.
  const auto slope = [&](double share) {
    constexpr double kStep = 0.01;
    double sum = 0;
    for (const auto& pair : circuit.pairs) {
      ByHand corrupt;
      m_of(transformer, pair, pair.corrupt.tokens, corrupt);
      const auto m = [&](double at) {
        ByHand between;
        between.changes[site] = [&](at::Tensor& x) { x = at::lerp(corrupt.seen.at(site), x, at); };
        return m_of(transformer, pair, pair.clean.tokens, between);
      };
      sum += (m(share - kStep) - m(share + kStep)) / (2 * kStep);
    }
    return sum / static_cast<double>(circuit.pairs.size());
  };
  CHECK(std::abs(slope(0) - slope(1)) > 0.04 * std::abs(slope(1)));
  CHECK(pairs.attribution().sum().item<double>() == Approx(slope(1)).epsilon(0.02));
  CHECK(pairs.attribution(1).sum().item<double>() == Approx(slope(0)).epsilon(0.02));
  CHECK(pairs.attribution(2).sum().item<double>() == Approx((slope(0) + slope(0.5)) / 2).epsilon(0.02));
}

TEST_CASE("latents planted in a model are found by every method, needed, and found again") {
  // The autoencoder's latents are the two sides of every coordinate, which leaves no error; behind its site the model
  // adds next to nothing, and reads m from two coordinates.
  const test::RandomModel tiny;
  auto& transformer = *tiny.transformer;
  const auto width = transformer.config().width;
  const Site site{SiteKind::resid_post, 0};
  AutoencoderCard card = test::tiny_card(Architecture::standard, site);
  card.d_sae = 2 * width;
  const at::Tensor both = at::cat({at::eye(width), -at::eye(width)}).contiguous();
  Autoencoder::Weights weights;
  weights.W_enc = weights.W_dec = both;
  weights.b_enc = at::zeros({card.d_sae});
  weights.b_dec = at::zeros({width});
  const Autoencoders autoencoders = {std::make_shared<const Autoencoder>(card, weights)};
  for (const SiteKind kind : {SiteKind::attn_out, SiteKind::mlp_out}) {
    const auto writer = transformer.writer({kind, 1})->weight;
    transformer.set(writer, transformer.get(writer) * .02);
  }
  const auto raised = tiny.tokenizer->encode("a").front(), lowered = tiny.tokenizer->encode("b").front();
  auto unembedding = transformer.get(transformer.unembedding_name()).clone();
  unembedding[raised].zero_();
  unembedding[lowered].zero_();
  for (const std::int64_t coordinate : {3, 11}) unembedding[raised][coordinate] = 4;
  transformer.set(transformer.unembedding_name(), unembedding);
  const auto is_planted = [&](std::int64_t node) {
    return node < card.d_sae && (node % width == 3 || node % width == 11);
  };

  BoundCircuit circuit = pairs_of(
      *tiny.tokenizer,
      {{"The cat sat", "The hat fit"}, {"Mug dog", "Mug dig"}, {"Six men", "Ten mud"}, {"We go up", "We do it"}});
  circuit.kept = 4;
  for (const auto method : {dsl::CircuitMethod::eap, dsl::CircuitMethod::eap_ig, dsl::CircuitMethod::exact}) {
    dsl::CircuitDecl declared;
    declared.method.method = method;
    declared.keep.nodes = true;
    const auto found = find_circuit(transformer, declared, circuit, {true, true}, 3, autoencoders);
    INFO(dsl::circuit_method_name(method));
    const LatentPairs pairs = latent_pairs(transformer, autoencoders, circuit);
    const auto scores =
        (method == dsl::CircuitMethod::exact ? pairs.brute_force()
                                             : pairs.attribution(method == dsl::CircuitMethod::eap ? 0 : 5))
            .abs();
    double right = 0, compared = 0;
    for (std::int64_t in = 0; in < pairs.nodes().count(); ++in) {
      for (std::int64_t out = 0; is_planted(in) && out < pairs.nodes().count(); ++out) {
        if (is_planted(out)) continue;
        ++compared;
        right += scores[in].item<double>() > scores[out].item<double>();
      }
    }
    UNSCOPED_INFO("AUROC " << right / compared);
    CHECK(right / compared >= 0.95);
    for (const auto& node : found.nodes) {
      UNSCOPED_INFO(node.name << " " << node.score);
      CHECK(is_planted(node.number));
    }
    CHECK(std::ssize(found.nodes) + found.pruned == 4);
    CHECK(found.model_nodes == 2 * width + 1);
    CHECK(found.edges.empty());
    double left = 0, whole = 0;
    for (std::size_t i = 0; i < found.clean.size(); ++i) {
      left += std::abs(found.circuit[i] - found.clean[i]);
      whole += std::abs(found.edgeless[i] - found.clean[i]);
    }
    CHECK(left < 0.5 * whole);
    REQUIRE(found.minimality);
    CHECK(found.minimality->compared > 5);
    REQUIRE(found.stability);
    CHECK(found.stability->overlap > 0.5);
    CHECK(found.stability->inclusion.size() == found.nodes.size());
    CHECK(found.stability->ablations.size() == 2);
    CHECK(overlap(found, found).share() == 1);
    CHECK(overlap(found, found).nodes);
  }
}

TEST_CASE("latents that fire alike on both prompts are no part of a circuit, however many it may keep") {
  const test::RandomModel tiny;
  const auto autoencoders = at_sites({{SiteKind::resid_post, 0}}, tiny.transformer->card());
  BoundCircuit circuit = pairs_of(*tiny.tokenizer, {{"A dog", "A dig"}});
  circuit.kept = 41;
  dsl::CircuitDecl declared;
  declared.keep.nodes = true;
  declared.method.method = dsl::CircuitMethod::eap;
  const auto found = find_circuit(*tiny.transformer, declared, circuit, {}, 0, autoencoders);
  CHECK(found.pruned > 0);
  CHECK(std::ssize(found.nodes) == 41 - found.pruned);
  for (const auto& node : found.nodes) CHECK(node.score != 0);
  CHECK(found.nodes.front().name.starts_with("resid_post[0] "));
  CHECK(found.curve.back().m.front() == Approx(found.clean.front()).margin(1e-5));
}

TEST_CASE("a circuit of latents is measured on the pairs held out, and with a rule in force") {
  const test::RandomModel tiny;
  const auto autoencoders = at_sites({{SiteKind::resid_post, 0}}, tiny.transformer->card());
  BoundCircuit circuit = pairs_of(*tiny.tokenizer, kTexts);
  circuit.held = pairs_of(*tiny.tokenizer, {{"Six men", "Ten men"}}).pairs;
  circuit.kept = 6;
  dsl::CircuitDecl declared;
  declared.keep.nodes = true;
  declared.method.method = dsl::CircuitMethod::eap;
  const auto found = find_circuit(*tiny.transformer, declared, circuit, {}, 0, autoencoders);
  BoundCircuit held;
  held.pairs = circuit.held;
  CHECK(found.clean == latent_pairs(*tiny.transformer, autoencoders, held).clean());
  CHECK(found.circuit == latent_pairs(*tiny.transformer, autoencoders, held).measure(found.kept));
  REQUIRE(found.found_on);
  CHECK(found.found_on->clean == latent_pairs(*tiny.transformer, autoencoders, circuit).clean());

  // What is in force acts before the latents are read, and upstream of them.
  const at::NoGradGuard no_grad;
  ByHand rule;
  for (const Site& site : {Site{SiteKind::embed}, Site{SiteKind::resid_post, 0}, Site{SiteKind::mlp_out, 1}})
    rule.changes[site] = [](at::Tensor& x) { x.mul_(1.5); };
  const LatentPairs ruled(*tiny.transformer, LatentNodes(autoencoders), circuit.pairs, false, dsl::Ablation::resample,
                          [&](const auto&) { return &rule; });
  CHECK(ruled.measure(ruled.all()) == ruled.clean());
  CHECK(ruled.clean()[0] ==
        Approx(m_of(*tiny.transformer, circuit.pairs[0], circuit.pairs[0].clean.tokens, rule)).margin(1e-5));
  CHECK(ruled.edgeless()[0] ==
        Approx(m_of(*tiny.transformer, circuit.pairs[0], circuit.pairs[0].corrupt.tokens, rule)).margin(1e-5));
  CHECK(std::abs(ruled.clean()[0] - found.found_on->clean[0]) > 1e-3);
}

}  // namespace proviso::runtime

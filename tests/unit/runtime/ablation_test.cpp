// Features taken out whole: what the model says then is held to the same change made by hand.

#include "runtime/ablation.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/model/sinks.hpp"
#include "tests/support/tiny_autoencoder.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {
namespace {

using dsl::Ablation;
using dsl::Site;
using dsl::SiteKind;
using test::RulesOnModel;

const Site kFirst{SiteKind::resid_post, 0, -1}, kSecond{SiteKind::mlp_out, 1, -1};

/// Keeps what stands at some sites, and changes it where told.
struct Editor : model::SiteVisitor {
  std::map<Site, at::Tensor> seen;
  std::map<Site, std::function<void(at::Tensor&)>> changes;
  std::set<Site> sites;
  bool wants(const Site& site) const override { return sites.contains(site); }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    seen[site] = x.clone();
    if (const auto change = changes.find(site); change != changes.end()) change->second(x);
  }
};

/// Of a feature at the site that it changes: what is read, and the vector that a unit of it adds there.
struct Feature {
  std::function<at::Tensor(const at::Tensor& x)> read;  // [n] float64
  at::Tensor unit;                                      // [width] float64
  std::optional<Site> read_at{};                        ///< nothing: where it is changed
};

Feature along(const at::Tensor& d) {
  return {[=](const at::Tensor& x) { return x.to(at::kDouble).matmul(d); }, d};
}

Feature latent(const Autoencoder& autoencoder, std::int64_t index) {
  return {[&autoencoder, index](const at::Tensor& x) {
            return autoencoder.encode(x, at::tensor({index}, at::kLong)).activations.squeeze(1).to(at::kDouble);
          },
          autoencoder.decoder_row(index).to(at::kDouble)};
}

struct ByHand {
  const model::Transformer& transformer;
  std::map<Site, Feature> features;

  struct Clean {
    std::vector<std::int64_t> tokens;
    std::map<Site, at::Tensor> values;                   // [n] float64
    std::map<Site, std::vector<std::uint8_t>> ordinary;  // positions that count
  };
  Clean clean(const std::vector<std::int64_t>& tokens) const {
    Editor editor;
    for (const auto& [site, feature] : features) {
      editor.sites.insert(feature.read_at.value_or(site));
      editor.sites.insert(model::sink_site(site, transformer.config()));
    }
    test::logits_of(transformer, {{tokens, std::ssize(tokens)}}, &editor);
    Clean clean{tokens, {}, {}};
    for (const auto& [site, feature] : features) {
      clean.values[site] = feature.read(editor.seen.at(feature.read_at.value_or(site)));
      const auto norms = editor.seen.at(model::sink_site(site, transformer.config())).norm(2, 1).contiguous();
      const std::span<const float> each(norms.const_data_ptr<float>(), static_cast<std::size_t>(norms.numel()));
      clean.ordinary[site] = model::ordinary_positions(each);
    }
    return clean;
  }
  /// The last logits where the features become `wanted(site, position)`.
  at::Tensor logits(const std::vector<std::int64_t>& tokens,
                    const std::function<double(const Site&, std::int64_t)>& wanted) const {
    Editor editor;
    for (const auto& [site, feature] : features) {
      editor.sites.insert({site, feature.read_at.value_or(site)});
      editor.changes[site] = [&, site = site, feature = feature](at::Tensor& x) {
        std::vector<double> values;
        for (std::int64_t i = 0; i < x.size(0); ++i) values.push_back(wanted(site, i));
        const auto now = feature.read(editor.seen.at(feature.read_at.value_or(site)));
        x = (x.to(at::kDouble) + (at::tensor(values, at::kDouble) - now).outer(feature.unit)).to(at::kFloat);
      };
    }
    return test::logits_of(transformer, {{tokens, std::ssize(tokens)}}, &editor)[-1];
  }
};

/// The last logits of each prompt of the set `texts` under the first check's effect, by an ablation.
std::vector<at::Tensor> ablated(RulesOnModel& rules, const BoundPrompts& prompts, Ablation kind,
                                std::vector<Direction>* features = nullptr, std::uint64_t seed = 0) {
  const auto& node = rules.rules->checks[0].expectations[0].metric.node;
  PlanBuilder builder(rules.bound);
  PlannedSource planned{kind, {{}}};
  for (const auto& prompt : prompts) planned.sets[0].push_back(builder.sequence(prompt));
  const auto& change = std::get<dsl::metric::Effect>(node).change;
  Beside beside;
  beside.source = planned;
  const auto state = builder.state({}, {}, &change, seed, beside);
  for (const auto id : planned.sets[0]) {
    const auto last = std::ssize(builder.plan().sequences[id].tokens) - 1;
    for (std::int64_t token = 0; token < test::kByteVocabulary; token += 8) builder.want_logits(state, id, last, token);
  }
  const auto plan = optimise(builder.take(), rules.bound, {});
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build(plan.features).empty());
  const auto evidence = session.carry_out(plan);
  if (features) *features = session.features();
  std::vector<at::Tensor> logits;
  for (const auto id : planned.sets[0]) {
    std::vector<double> values;
    for (const auto& [token, about] : evidence.at(state, id).logits.rbegin()->second.tokens)
      values.push_back(about.logit);
    logits.push_back(at::tensor(values, at::kDouble));
  }
  return logits;
}

at::Tensor some(const at::Tensor& logits) { return logits.slice(0, 0, std::nullopt, 8).to(at::kDouble); }

bool close(const at::Tensor& a, const at::Tensor& b) { return at::allclose(a, b, 1e-4, 1e-4); }

const std::string kPrompts = R"(
prompts p = ["The cat sat", "A dog ran!", "My hat fell"]
prompts q = ["One two ten", "Six or seven?", "Nine then"]
prompts texts = ["He is in", "She was at it", "They went out again", "I"]
)";

/// Returns how many prompts of more than one token are known to be taken from, each by one other.
std::size_t holds_by_hand(RulesOnModel& rules, const BoundPrompts& prompts, const ByHand& hand) {
  std::vector<ByHand::Clean> clean;
  for (const auto& prompt : prompts) clean.push_back(hand.clean(prompt.tokens));

  const auto zero = ablated(rules, prompts, Ablation::zero), mean = ablated(rules, prompts, Ablation::mean),
             resample = ablated(rules, prompts, Ablation::resample);
  std::map<Site, double> means;
  for (const auto& [site, feature] : hand.features) {
    double sum = 0;
    int counted = 0;
    for (const auto& one : clean) {
      double own = 0;
      int positions = 0;
      for (std::size_t i = 0; i < one.tokens.size(); ++i) {
        if (!one.ordinary.at(site)[i]) continue;
        own += one.values.at(site)[static_cast<std::int64_t>(i)].item<double>();
        ++positions;
      }
      if (positions == 0) continue;
      sum += own / positions;
      ++counted;
    }
    means[site] = sum / counted;
  }
  std::set<std::size_t> takes_from;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    INFO(prompts[i].text);
    const auto& tokens = prompts[i].tokens;
    CHECK(close(zero[i], some(hand.logits(tokens, [](const Site&, std::int64_t) { return 0.0; }))));
    CHECK(close(mean[i], some(hand.logits(tokens, [&](const Site& site, std::int64_t) { return means.at(site); }))));
    std::vector<std::size_t> donors;
    for (std::size_t j = 0; j < prompts.size(); ++j) {
      if (clean[j].tokens.size() < 2) continue;
      const auto value = [&](const Site& site, std::int64_t position) {
        const auto length = std::ssize(clean[j].tokens);
        const auto same = position - std::ssize(tokens) + length;
        std::int64_t nearest = -1;
        for (std::int64_t k = 0; k < length; ++k) {
          const bool nearer = nearest < 0 || std::abs(k - same) <= std::abs(nearest - same);
          if (clean[j].ordinary.at(site)[static_cast<std::size_t>(k)] && nearer) nearest = k;
        }
        return clean[j].values.at(site)[nearest].item<double>();
      };
      if (close(resample[i], some(hand.logits(tokens, value)))) donors.push_back(j);
    }
    CHECK(std::any_of(donors.begin(), donors.end(), [&](std::size_t j) { return j != i; }));
    // Where a latent is silent on several prompts, each of them explains what is seen.
    if (tokens.size() > 1 && donors.size() == 1) CHECK(takes_from.insert(donors[0]).second);
  }
  return takes_from.size();
}

}  // namespace

TEST_CASE("a direction taken out is what the same change by hand makes of the logits") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  RulesOnModel rules(kPrompts + R"(
feature f = contrast(p, q) at resid_post[0]
check c { expect effect(suppress f at [resid_post[0], mlp_out[1]], on: perplexity(texts), control: 2) >= -1000 }
)",
                     json);
  const at::NoGradGuard no_grad;
  std::vector<Direction> features;
  const auto& prompts = rules.bound.prompts[2];
  ablated(rules, prompts, Ablation::zero, &features);
  REQUIRE(features[0].b != 0);
  const Feature feature = along(features[0].d);
  CHECK(holds_by_hand(rules, prompts, {*rules.model.transformer, {{kFirst, feature}, {kSecond, feature}}}) == 3);
}

TEST_CASE("a latent taken out is what the same change by hand makes of the logits") {
  const auto card = test::tiny_card(Architecture::standard);
  RulesOnModel rules(kPrompts + R"(
feature f = latent(5, sae: "sae")
check c { expect effect(suppress f, on: perplexity(texts), control: 2) >= -1000 }
)",
                     test::tiny_llama_json(), test::tiny_autoencoder_files(card));
  const at::NoGradGuard no_grad;
  const auto autoencoder = test::tiny_autoencoder(card);
  holds_by_hand(rules, rules.bound.prompts[2], {*rules.model.transformer, {{kFirst, latent(autoencoder, 5)}}});
}

TEST_CASE("a transcoder's latent taken out is what the same change by hand makes where it writes") {
  const Site read{SiteKind::resid_mid, 0, -1}, written{SiteKind::mlp_out, 0, -1};
  auto card = test::tiny_card(Architecture::transcoder, read);
  card.written = written;
  RulesOnModel rules(kPrompts + R"(
feature f = latent(5, sae: "sae")
check c { expect effect(suppress f, on: perplexity(texts), control: 2) >= -1000 }
)",
                     test::tiny_llama_json(), test::tiny_autoencoder_files(card));
  const at::NoGradGuard no_grad;
  const auto autoencoder = test::tiny_autoencoder(card);
  Feature feature = latent(autoencoder, 5);
  feature.read_at = read;
  holds_by_hand(rules, rules.bound.prompts[2], {*rules.model.transformer, {{written, feature}}});
}

TEST_CASE("the seed draws which prompt another one's value comes from") {
  RulesOnModel rules(kPrompts + R"(
feature f = contrast(p, q) at resid_post[0]
check c { expect effect(suppress f, on: perplexity(texts), control: 2) >= -1000 }
)");
  const auto& prompts = rules.bound.prompts[2];
  const auto first = ablated(rules, prompts, Ablation::resample);
  const auto again = ablated(rules, prompts, Ablation::resample);
  bool differs = false;
  for (std::size_t i = 0; i < prompts.size(); ++i) CHECK(at::equal(first[i], again[i]));
  for (std::uint64_t seed = 1; seed < 6; ++seed) {
    const auto other = ablated(rules, prompts, Ablation::resample, nullptr, seed);
    for (std::size_t i = 0; i < prompts.size(); ++i) differs = differs || !close(first[i], other[i]);
  }
  CHECK(differs);
}

TEST_CASE("a patch from resample puts in what another prompt has, whole, from position 1 on") {
  const auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  RulesOnModel rules(kPrompts + R"(
check c { expect effect(patch [resid_post[0], mlp_out[1]] from resample, on: perplexity(texts), control: 2) >= -1000 }
)",
                     json);
  const at::NoGradGuard no_grad;
  const auto& prompts = rules.bound.prompts[2];
  const auto& transformer = *rules.model.transformer;
  const std::vector<Site> sites = {kFirst, kSecond};
  const auto seen = [&](const std::vector<std::int64_t>& tokens) {
    Editor editor;
    for (const auto& site : sites) {
      editor.sites.insert(site);
      editor.sites.insert(model::sink_site(site, transformer.config()));
    }
    test::logits_of(transformer, {{tokens, std::ssize(tokens)}}, &editor);
    return editor.seen;
  };
  const auto found = ablated(rules, prompts, Ablation::resample);
  std::set<std::size_t> givers;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    INFO(prompts[i].text);
    const auto& tokens = prompts[i].tokens;
    for (std::size_t j = 0; j < prompts.size(); ++j) {
      if (prompts[j].tokens.size() < 2 || j == i) continue;
      const auto donor = seen(prompts[j].tokens);
      Editor editor;
      for (const auto& site : sites) {
        editor.sites.insert(site);
        const auto norms = donor.at(model::sink_site(site, transformer.config())).norm(2, 1).contiguous();
        const auto counts = model::ordinary_positions({norms.const_data_ptr<float>(), prompts[j].tokens.size()});
        editor.changes[site] = [&, site, counts](at::Tensor& x) {
          for (std::int64_t k = 1; k < x.size(0); ++k) x[k] = donor.at(site)[resampled_position(k, x.size(0), counts)];
        };
      }
      const auto by_hand = test::logits_of(transformer, {{tokens, std::ssize(tokens)}}, &editor)[-1];
      if (close(found[i], some(by_hand)) && tokens.size() > 1) givers.insert(j);
    }
    if (tokens.size() == 1) {
      CHECK(close(found[i], some(test::logits_of(transformer, {{tokens, 1}})[-1])));
    }
  }
  CHECK(givers.size() == 3);
}

TEST_CASE("a token takes from its place counted from the end, or the nearest that counts, the later of two") {
  const Mask count = {0, 1, 0, 1, 1};
  CHECK(resampled_position(4, 5, count) == 4);
  CHECK(resampled_position(2, 5, count) == 3);
  CHECK(resampled_position(0, 7, count) == 1);
  CHECK(resampled_position(1, 3, count) == 3);
  CHECK(resampled_position(9, 5, count) == 4);
  CHECK(resampled_position(1, 3, {0, 0, 0}) == 1);  // of a model whose numbers are NaN: it ends
}

TEST_CASE("a feature patched from resample is its ablation by resample") {
  const std::string feature = kPrompts + "feature f = contrast(p, q) at resid_post[0]\n";
  RulesOnModel patched(feature +
                       "check c { expect effect(patch feature f from resample, on: perplexity(texts)) <= 1 }");
  RulesOnModel suppressed(feature + "check c { expect effect(suppress f, on: perplexity(texts)) <= 1 }");
  const auto a = ablated(patched, patched.bound.prompts[2], Ablation::resample);
  const auto b = ablated(suppressed, suppressed.bound.prompts[2], Ablation::resample);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(at::equal(a[i], b[i]));
}

}  // namespace proviso::runtime

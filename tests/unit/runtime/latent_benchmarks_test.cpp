// Measures of single latents, on constructed autoencoders whose true value is known.

#include "runtime/autoencoders/latent_benchmarks.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "tests/support/random_model.hpp"

namespace proviso::runtime {
namespace {

constexpr std::int64_t kWidth = 6;

/// An autoencoder with these decoder rows; what it encodes is given by hand.
std::shared_ptr<const Autoencoder> with_rows(const std::vector<std::vector<float>>& rows) {
  std::vector<float> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  const auto count = static_cast<std::int64_t>(rows.size());
  AutoencoderCard card;
  card.d_in = card.d_out = kWidth;
  card.d_sae = count;
  Autoencoder::Weights w;
  w.W_dec = at::tensor(flat).view({count, kWidth});
  w.W_enc = w.W_dec.clone();
  w.b_enc = at::zeros({count});
  w.b_dec = at::zeros({kWidth});
  return std::make_shared<const Autoencoder>(card, w);
}

std::vector<float> unit(std::int64_t at, float length = 1) {
  std::vector<float> row(kWidth, 0);
  row[static_cast<std::size_t>(at)] = length;
  return row;
}

/// `count` prompts whose latents `of` gives by number; the vector is what they add up to, and a little noise.
EncodedPrompts prompts(const std::shared_ptr<const Autoencoder>& autoencoder, std::int64_t count, std::uint64_t seed,
                       const std::function<std::vector<float>(std::int64_t)>& of) {
  EncodedPrompts encoded;
  encoded.autoencoder = autoencoder;
  std::vector<float> flat;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto latents = of(i);
    flat.insert(flat.end(), latents.begin(), latents.end());
  }
  encoded.mean_f = at::tensor(flat).view({count, autoencoder->card().d_sae});
  encoded.mean_x = encoded.mean_f.mm(autoencoder->weights().W_dec) +
                   0.01 * test::random_tensor({count, kWidth}, seed).to(at::kFloat);
  encoded.last_f = encoded.mean_f;
  encoded.last_x = encoded.mean_x;
  encoded.has_mean.assign(static_cast<std::size_t>(count), 1);
  encoded.has_last = encoded.has_mean;
  return encoded;
}

LabelledPrompts labelled(const EncodedPrompts& encoded) {
  LabelledPrompts set{&encoded, {}};
  for (std::int64_t i = 0; i < encoded.mean_f.size(0); ++i) set.clusters.push_back(i);
  return set;
}

double mean(const std::vector<BenchmarkValue>& values) {
  double sum = 0;
  for (const auto& value : values) sum += value.value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

TEST_CASE("sparse probing reads what k latents can tell, and no more") {
  const auto sae = with_rows({unit(0), unit(1), unit(2)});
  // Half of P fires one latent and half another: one of them tells three quarters apart.
  const auto p = prompts(sae, 40, 1, [](std::int64_t i) {
    return i / 4 % 2 == 0 ? std::vector{1.0F, 0.0F, 0.5F} : std::vector{0.0F, 1.0F, 0.5F};
  });
  const auto q = prompts(sae, 40, 2, [](std::int64_t) { return std::vector{0.0F, 0.0F, 0.5F}; });
  const std::vector<LabelledPrompts> sides = {labelled(p), labelled(q)};
  CHECK(mean(sparse_probing(sides, 1)) == Approx(0.75));
  CHECK(mean(sparse_probing(sides, 2)) == Approx(1));
  CHECK(mean(dense_probing(sides)) == Approx(1));
  CHECK(sparse_probing(sides, 1).size() == 80);
}

TEST_CASE("what no latent tells is told at chance by probes that have not seen the prompt") {
  const auto sae = with_rows({unit(0), unit(1)});
  const auto noise = [](std::uint64_t seed) {
    const auto random = test::random_tensor({60, 2}, seed).abs().to(at::kFloat);
    return [random](std::int64_t i) { return std::vector{random[i][0].item<float>(), random[i][1].item<float>()}; };
  };
  const auto p = prompts(sae, 60, 3, noise(5)), q = prompts(sae, 60, 4, noise(6));
  const double share = mean(sparse_probing({labelled(p), labelled(q)}, 2));
  CHECK(share > 0.3);
  CHECK(share < 0.7);
}

TEST_CASE("absorption is the share where another latent says what the class's own should") {
  // Latent 0 is the class. Latent 1 is a token that has taken the class in: it fires in its place.
  const auto sae = with_rows({unit(0), {1, 1, 0, 0, 0, 0}, unit(2), unit(3)});
  const auto of = [](int absorbed) {
    return [absorbed](std::int64_t i) {
      return i / 4 % 4 < absorbed ? std::vector{0.0F, 1.0F, 0.3F, 0.0F} : std::vector{1.0F, 0.0F, 0.0F, 0.3F};
    };
  };
  const auto q = prompts(sae, 48, 12, [](std::int64_t i) {
    return i % 2 == 0 ? std::vector{0.0F, 0.0F, 0.3F, 0.0F} : std::vector{0.0F, 0.0F, 0.0F, 0.3F};
  });
  for (const int quarters : {0, 1}) {
    const auto p = prompts(sae, 48, 11, of(quarters));
    const auto values = absorption({labelled(p), labelled(q)}, 1);
    CHECK(values.size() == 48);  // the probe tells all of P
    CHECK(mean(values) == Approx(quarters / 4.0));
    CHECK(mean(absorption({labelled(p), labelled(q)}, 2)) == Approx(0));  // with both, one of its own always fires
  }
}

TEST_CASE("targeted probe perturbation: each class's latents are read by its own probe alone, or by all") {
  const auto apart = with_rows({unit(0), unit(1), unit(2)});
  const auto of = [](std::int64_t fires) {
    return [fires](std::int64_t) {
      std::vector<float> latents(3, 0);
      latents[static_cast<std::size_t>(fires)] = 1;
      return latents;
    };
  };
  const auto a = prompts(apart, 16, 21, of(0)), b = prompts(apart, 16, 22, of(1)), c = prompts(apart, 16, 23, of(2));
  // Without its latent a class is lost and the rest stays: half of the balanced accuracy.
  CHECK(mean(tpp({labelled(a), labelled(b), labelled(c)}, 1)) == Approx(0.5));

  // The class shows in the sign and size of one direction, which one latent carries for all.
  const auto together = with_rows({unit(0)});
  const auto level = [](float by) { return [by](std::int64_t) { return std::vector{by}; }; };
  const auto low = prompts(together, 16, 24, level(0.5F)), middle = prompts(together, 16, 25, level(1)),
             high = prompts(together, 16, 26, level(2));
  CHECK(mean(tpp({labelled(low), labelled(middle), labelled(high)}, 1)) < 0.3);
}

TEST_CASE(
    "spurious correlation removal: all of it where a latent holds the spurious alone, none where it is mixed in") {
  const auto total = [](const std::vector<BenchmarkValue>& values) {
    double gained = 0, whole = 0;
    for (const auto& value : values) {
      gained += value.value;
      whole += value.whole;
    }
    return std::pair(gained, whole);
  };
  // The spurious shows twice as strongly as what is wanted.
  const auto apart = with_rows({unit(0), unit(1, 2)});
  const auto both = [](float wanted, float spurious) {
    return [wanted, spurious](std::int64_t) { return std::vector{wanted, spurious}; };
  };
  const auto a = prompts(apart, 16, 31, both(1, 1)), b = prompts(apart, 16, 32, both(1, 0)),
             c = prompts(apart, 16, 33, both(0, 1)), d = prompts(apart, 16, 34, both(0, 0));
  const auto [gained, whole] = total(scr({labelled(a), labelled(b), labelled(c), labelled(d)}, 1));
  CHECK(whole == Approx(2));  // two of four sets are told wrongly by the biased probe
  CHECK(gained == Approx(whole));

  const auto mixed = with_rows({{1, 2, 0, 0, 0, 0}, unit(1, 2)});
  const auto p = prompts(mixed, 16, 41, both(1, 0)), s = prompts(mixed, 16, 44, both(0, 0));
  // The same vectors as above where one latent holds both and the other is never alone.
  auto w = prompts(mixed, 16, 42, both(1, -1)), u = prompts(mixed, 16, 43, both(0, 1));
  for (auto* set : {&w, &u}) set->mean_f = at::zeros_like(set->mean_f);  // nothing fires on them
  const auto [none, all] = total(scr({labelled(p), labelled(w), labelled(u), labelled(s)}, 1));
  CHECK(all == Approx(2));
  CHECK(none < 0.5 * all);
}

}  // namespace proviso::runtime

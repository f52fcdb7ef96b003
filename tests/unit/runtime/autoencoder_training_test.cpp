// Training, measuring and reading sparse autoencoders.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "runtime/autoencoders/latent_reading.hpp"
#include "runtime/autoencoders/quality.hpp"
#include "runtime/autoencoders/sparse_products.hpp"
#include "runtime/autoencoders/trainer.hpp"
#include "tests/support/tiny_autoencoder.hpp"

namespace proviso::runtime {
namespace {

const dsl::Site kSite{dsl::SiteKind::resid_post, 0, -1};

std::string some_text() {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "The cat number " + std::to_string(i * 37 % 101) + " sat on a mat. ";
  return text;
}

struct Trained {
  test::RandomModel model;
  test::TemporaryFolder folder;
  TextRows texts;

  Trained() {
    test::write_bytes(folder / "text.txt", some_text());
    texts = read_text_rows({folder / "text.txt"}, *model.tokenizer, 32);
  }
  TrainingSettings settings(std::int64_t vectors) const {
    TrainingSettings settings;
    settings.site = kSite;
    settings.latents = 48;
    settings.k = 4;
    settings.batch = 128;
    settings.vectors = vectors;
    settings.learning_rate = 0.01;
    return settings;
  }
  Training train(const TrainingSettings& settings) {
    return train_autoencoder(*model.transformer, texts, settings, {});
  }
};

std::string bytes_of(const Autoencoder& autoencoder) {
  const auto& w = autoencoder.weights();
  return test::bytes_of(w.W_enc) + test::bytes_of(w.W_dec) + test::bytes_of(w.b_enc) + test::bytes_of(w.b_dec) +
         test::bytes_of(w.threshold);
}

}  // namespace

TEST_CASE("sparse products are those of the dense matrix") {
  const auto rows = test::random_tensor({9, 21}, 1).to(at::kFloat), x = test::random_tensor({5, 21}, 2).to(at::kFloat);
  auto values = test::random_tensor({5, 3}, 3).to(at::kFloat);
  values[2][1] = 0;
  const auto index = at::tensor({0, 4, 8, 1, 2, 3, 8, 7, 6, 0, 1, 2, 5, 4, 3}, at::kLong).view({5, 3});
  const auto F = at::zeros({5, 9}).scatter_(1, index, values);
  CHECK(at::allclose(sparse_decode(values, index, rows), F.matmul(rows), 1e-5, 1e-6));
  CHECK(at::allclose(sparse_gradient(values, index, x, 9), F.t().matmul(x), 1e-5, 1e-6));
  CHECK(at::allclose(row_products(x, index, rows), x.matmul(rows.t()).gather(1, index), 1e-5, 1e-6));
}

TEST_CASE("the largest of each row are those that a full sort finds, the first of equals") {
  for (const std::int64_t k : {1, 5, 64}) {
    auto x = test::random_tensor({37, 700}, 3).to(at::kFloat);
    x = (x * 20).round() / 20;  // many ties
    x[3].fill_(0);
    x[4][10] = std::numeric_limits<float>::quiet_NaN();
    const auto [values, columns] = largest(x, k);
    const auto [sorted, order] = x.nan_to_num(-1e9).sort(/*stable=*/true, 1, /*descending=*/true);
    CHECK(at::equal(columns, std::get<0>(order.narrow(1, 0, k).sort(1))));
    CHECK(at::equal(values, x.gather(1, columns)));
  }
}

TEST_CASE("training explains more of the activations than it began with, with rows of length 1") {
  Trained trained;
  auto settings = trained.settings(128);
  settings.sparsity = GENERATE(Sparsity::topk, Sparsity::batch_topk, Sparsity::jumprelu);
  const auto first = trained.train(settings);
  settings.vectors = 40'000;
  const auto last = trained.train(settings);
  const auto before = measure_quality(*trained.model.transformer, *first.autoencoder, trained.texts);
  const auto after = measure_quality(*trained.model.transformer, *last.autoencoder, trained.texts);
  CHECK(after.variance_explained > 0.9);
  CHECK(after.variance_explained > before.variance_explained + 0.1);
  CHECK(after.loss_recovered > before.loss_recovered);
  CHECK(last.variance_explained == Approx(after.variance_explained).margin(0.05));
  CHECK(after.positions < after.tokens);
  if (settings.sparsity != Sparsity::topk) {
    CHECK(last.autoencoder->card().architecture == Architecture::jumprelu);
    CHECK(after.l0 == Approx(4).margin(1.5));
  } else {
    CHECK(after.l0 <= 4);
  }
  CHECK(at::allclose(last.autoencoder->weights().W_dec.norm(2, 1), at::ones({48}), 1e-5, 1e-5));
}

TEST_CASE("training is the same for a seed, whether the text fits in memory or not, and after a stop") {
  Trained trained;
  auto settings = trained.settings(3'000);
  settings.sparsity = GENERATE(Sparsity::batch_topk, Sparsity::jumprelu);
  settings.in_memory = GENERATE(131'072, 700);
  settings.dead_after = 300;
  const auto whole = trained.train(settings);
  CHECK(bytes_of(*trained.train(settings).autoencoder) == bytes_of(*whole.autoencoder));
  auto other = settings;
  other.seed = 1;
  CHECK(bytes_of(*trained.train(other).autoencoder) != bytes_of(*whole.autoencoder));

  // A kill in mid-training: what the last checkpoint held is gone on with.
  settings.checkpoint = trained.folder / "out.checkpoint";
  settings.checkpoint_seconds = 0;
  std::int64_t steps = 0;
  const auto stop = [&](std::string_view stage, std::int64_t, std::int64_t) {
    if (stage.starts_with("training") && ++steps == 10) throw std::runtime_error("stopped");
  };
  CHECK_THROWS_WITH(train_autoencoder(*trained.model.transformer, trained.texts, settings, stop), "stopped");
  settings.resume = true;
  const auto resumed = trained.train(settings);
  CHECK(resumed.trained_here < resumed.vectors);
  CHECK(bytes_of(*resumed.autoencoder) == bytes_of(*whole.autoencoder));
  settings.k = 5;
  CHECK_THROWS_WITH(trained.train(settings), Catch::Contains("the checkpoint is of k 4, and 5 is asked for"));
}

TEST_CASE("a process killed at any moment of training leaves a checkpoint that leads to the same bytes, or none") {
  Trained trained;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);  // a forked process has no threads but its first
  auto settings = trained.settings(8'000);
  settings.sparsity = Sparsity::batch_topk;
  settings.checkpoint = trained.folder / "out.checkpoint";
  settings.checkpoint_seconds = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto whole = bytes_of(*trained.train(settings).autoencoder);
  const auto taken = std::chrono::steady_clock::now() - start;
  constexpr int kMoments = 12;
  int left = 0;
  for (int moment = 0; moment < kMoments; ++moment) {
    std::filesystem::remove(settings.checkpoint);
    settings.resume = false;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      trained.train(settings);
      ::_exit(0);
    }
    const auto wait = std::chrono::duration_cast<std::chrono::microseconds>(taken * moment / kMoments);
    ::usleep(static_cast<useconds_t>(wait.count()));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    INFO("killed after " << wait.count() << " µs");
    settings.resume = std::filesystem::exists(settings.checkpoint);
    left += settings.resume ? 1 : 0;
    CHECK(bytes_of(*trained.train(settings).autoencoder) == whole);
  }
  CHECK(left > 0);
  at::set_num_threads(threads);
}

TEST_CASE("too little text is said to be") {
  Trained trained;
  auto settings = trained.settings(100'000);
  settings.batch = 50'000;
  CHECK_THROWS_WITH(trained.train(settings), Catch::Contains("vectors, and a batch takes 50000"));
  test::write_bytes(trained.folder / "latin.txt", "caf\xe9 au lait");
  CHECK_THROWS_WITH(read_text_rows({trained.folder / "latin.txt"}, *trained.model.tokenizer, 32),
                    Catch::Contains("byte 4 is no UTF-8"));
}

TEST_CASE("latents are ranked by their largest activation over a prompt, ties at mid-rank") {
  const test::RandomModel model;
  const auto autoencoder = test::tiny_autoencoder(test::tiny_card());
  const auto positive = test::rows_of(*model.tokenizer, {"The cat sat", "A dog ran!", "My hat"});
  const auto negative = test::rows_of(*model.tokenizer, {"One two ten", "Six or"});
  const auto aurocs = latent_aurocs(*model.transformer, autoencoder, positive, negative);
  const auto peak = [&](const model::Row& row, std::int64_t latent) {
    double most = 0;
    each_activation(*model.transformer, kSite, kSite, {row}, [&](const SeenActivations& seen) {
      most = std::max(most, autoencoder.encode(seen.read).activations.select(1, latent).max().item<double>());
    });
    return most;
  };
  for (const std::int64_t latent : {3, 17, 30}) {
    double wins = 0;
    for (const auto& p : positive) {
      for (const auto& q : negative) {
        const double a = peak(p, latent), b = peak(q, latent);
        wins += a > b ? 1 : std::abs(a - b) < 1e-6 ? 0.5 : 0;
      }
    }
    CHECK(aurocs[latent].item<double>() == Approx(wins / 6));
  }
}

TEST_CASE("a latent is read where it fires most") {
  Trained trained;
  const auto autoencoder = test::tiny_autoencoder(test::tiny_card());
  const auto readings = read_latents(*trained.model.transformer, autoencoder, trained.texts, {17}, {});
  double most = 0;
  std::int64_t fired = 0, token = -1;
  each_activation(*trained.model.transformer, kSite, kSite, trained.texts.rows, [&](const SeenActivations& seen) {
    const auto f = autoencoder.encode(seen.read).activations.select(1, 17);
    fired += f.ne(0).sum().item<std::int64_t>();
    if (const double peak = f.max().item<double>(); peak > most) {
      most = peak;
      token =
          seen.layout.tokens[seen.packed[f.argmax().item<std::int64_t>()].item<std::int64_t>()].item<std::int64_t>();
    }
  });
  REQUIRE(readings.size() == 1);
  CHECK(readings[0].fired == fired);
  CHECK(readings[0].max == Approx(most));
  REQUIRE_FALSE(readings[0].contexts.empty());
  CHECK(readings[0].contexts[0].token == token);
  CHECK(readings[0].logits.raises.size() == 8);
  CHECK(readings[0].logits.raises[0].second > readings[0].logits.raises[7].second);
}

}  // namespace proviso::runtime

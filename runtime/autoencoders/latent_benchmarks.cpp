#include "runtime/autoencoders/latent_benchmarks.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/features/logistic.hpp"

namespace proviso::runtime {

namespace {

constexpr double kAbsorbingCosine = 0.025;
constexpr double kAbsorbingShare = 0.4;

/// Which rows of each set are in a fold, or in the others.
class Folds {
 public:
  Folds(const std::vector<LabelledPrompts>& sets, const std::vector<std::uint8_t> EncodedPrompts::*counts) {
    for (const auto& set : sets) {
      std::map<std::int64_t, std::int64_t> by_cluster;
      auto& folds = folds_.emplace_back();
      const auto& counted = set.encoded->*counts;
      for (std::size_t i = 0; i < set.clusters.size(); ++i) {
        const auto fold = by_cluster.emplace(set.clusters[i], std::ssize(by_cluster) % kBenchmarkFolds).first->second;
        folds.push_back(counted[i] ? fold : -1);
      }
    }
  }

  std::vector<std::int64_t> rows(std::size_t set, std::int64_t fold, bool held_out) const {
    std::vector<std::int64_t> rows;
    for (std::size_t i = 0; i < folds_[set].size(); ++i) {
      if (folds_[set][i] >= 0 && (folds_[set][i] == fold) == held_out) rows.push_back(static_cast<std::int64_t>(i));
    }
    return rows;
  }

 private:
  std::vector<std::vector<std::int64_t>> folds_;  // −1: does not count
};

using Part = at::Tensor EncodedPrompts::*;

at::Tensor part(const LabelledPrompts& set, Part which, const std::vector<std::int64_t>& rows) {
  return (set.encoded->*which).index_select(0, at::tensor(rows, at::kLong)).to(at::kDouble);
}

/// The prompts that what is judged in one fold is trained on, set by set.
struct Training {
  const std::vector<LabelledPrompts>& sets;
  const Folds& folds;
  std::int64_t fold;

  at::Tensor of(std::size_t set, Part which) const { return part(sets[set], which, folds.rows(set, fold, false)); }
  at::Tensor of(const std::vector<std::size_t>& which_sets, Part which) const {
    std::vector<at::Tensor> parts;
    for (const std::size_t set : which_sets) parts.push_back(of(set, which));
    return at::cat(parts);
  }
  bool any(const std::vector<std::size_t>& which_sets) const {
    return std::ranges::any_of(which_sets, [&](std::size_t set) { return !folds.rows(set, fold, false).empty(); });
  }
};

LogisticModel probe(const at::Tensor& positive, const at::Tensor& negative) {
  return logistic_regression(at::cat({positive, negative}), at::cat({at::ones({positive.size(0)}, at::kDouble),
                                                                     at::zeros({negative.size(0)}, at::kDouble)}));
}

at::Tensor says_yes(const LogisticModel& model, const at::Tensor& x) {
  return (x.mv(model.weights) + model.intercept).gt(0);
}

at::Tensor largest(const at::Tensor& score, std::int64_t k) {
  return std::get<1>(score.topk(std::min(k, score.size(0))));
}

/// Latents by how much more a probe is raised by them in one set than in another. [d_sae]
at::Tensor raised_by(const Autoencoder& autoencoder, const LogisticModel& model, const at::Tensor& more,
                     const at::Tensor& less) {
  return (more.mean(0) - less.mean(0)) * autoencoder.decoder_rows().to(at::kDouble).mv(model.weights);
}

/// The vectors without what these latents add to them.
at::Tensor without(const Autoencoder& autoencoder, const at::Tensor& x, const at::Tensor& f,
                   const at::Tensor& latents) {
  const auto rows = autoencoder.decoder_rows().index_select(0, latents).to(at::kDouble);
  return x - f.index_select(1, latents).mm(rows);
}

/// Calls `judge` for each set's held-out rows of each fold that can be judged.
template <class Train, class Judge>
void each_fold(const std::vector<LabelledPrompts>& sets, const Folds& folds, Train train, Judge judge) {
  for (std::int64_t fold = 0; fold < kBenchmarkFolds; ++fold) {
    const Training training{sets, folds, fold};
    bool enough = true;
    for (std::size_t set = 0; set < sets.size(); ++set) enough = enough && training.any({set});
    if (!enough) continue;
    const auto trained = train(training);
    for (std::size_t set = 0; set < sets.size(); ++set) {
      const auto rows = folds.rows(set, fold, true);
      if (!rows.empty()) judge(trained, set, rows);
    }
  }
}

std::vector<BenchmarkValue> probing(const std::vector<LabelledPrompts>& sides, Part vectors, std::int64_t k) {
  struct Trained {
    at::Tensor columns;
    LogisticModel model;
  };
  const Folds folds(sides, &EncodedPrompts::has_mean);
  std::vector<BenchmarkValue> values;
  each_fold(
      sides, folds,
      [&](const Training& training) {
        auto p = training.of(0, vectors), q = training.of(1, vectors);
        const auto columns = k == 0 ? at::arange(p.size(1)) : largest((p.mean(0) - q.mean(0)).abs(), k);
        p = p.index_select(1, columns);
        q = q.index_select(1, columns);
        return Trained{columns, probe(p, q)};
      },
      [&](const Trained& trained, std::size_t set, const std::vector<std::int64_t>& rows) {
        const auto yes = says_yes(trained.model, part(sides[set], vectors, rows).index_select(1, trained.columns));
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const bool right = yes[static_cast<std::int64_t>(i)].item<bool>() == (set == 0);
          values.push_back({set, static_cast<std::size_t>(rows[i]), right ? 1.0 : 0.0, 0});
        }
      });
  return values;
}

/// How many held-out prompts a set has in all, so that sets can weigh the same.
std::vector<double> counted(const std::vector<LabelledPrompts>& sets) {
  std::vector<double> counts;
  for (const auto& set : sets)
    counts.push_back(static_cast<double>(std::ranges::count(set.encoded->has_mean, std::uint8_t{1})));
  return counts;
}

}  // namespace

std::vector<BenchmarkValue> sparse_probing(const std::vector<LabelledPrompts>& sides, std::int64_t k) {
  return probing(sides, &EncodedPrompts::mean_f, k);
}

std::vector<BenchmarkValue> dense_probing(const std::vector<LabelledPrompts>& sides) {
  return probing(sides, &EncodedPrompts::mean_x, 0);
}

std::vector<BenchmarkValue> absorption(const std::vector<LabelledPrompts>& sides, std::int64_t k) {
  struct Trained {
    LogisticModel model;
    at::Tensor own;    // [k] int64
    at::Tensor along;  // [d_sae] float64: the decoder row's product with the probe's unit vector
    at::Tensor angle;  // [d_sae] float64: its cosine
  };
  const Autoencoder& autoencoder = *sides.front().encoded->autoencoder;
  const Folds folds(sides, &EncodedPrompts::has_last);
  std::vector<BenchmarkValue> values;
  each_fold(
      sides, folds,
      [&](const Training& training) {
        Trained trained;
        trained.model = probe(training.of(0, &EncodedPrompts::last_x), training.of(1, &EncodedPrompts::last_x));
        const auto p = training.of(0, &EncodedPrompts::last_f), q = training.of(1, &EncodedPrompts::last_f);
        trained.own = largest(p.mean(0) - q.mean(0), k);
        const auto rows = autoencoder.decoder_rows().to(at::kDouble);
        trained.along = rows.mv(trained.model.weights / trained.model.weights.norm().clamp_min(1e-300));
        trained.angle = trained.along / rows.norm(2, 1).clamp_min(1e-300);
        return trained;
      },
      [&](const Trained& trained, std::size_t set, const std::vector<std::int64_t>& rows) {
        if (set != 0) return;
        const auto yes = says_yes(trained.model, part(sides[0], &EncodedPrompts::last_x, rows));
        const auto f = part(sides[0], &EncodedPrompts::last_f, rows);
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const auto at = static_cast<std::int64_t>(i);
          if (!yes[at].item<bool>()) continue;
          BenchmarkValue value{0, static_cast<std::size_t>(rows[i]), 0, 0};
          if (!f[at].index_select(0, trained.own).gt(0).any().item<bool>()) {
            const auto brought = (f[at] * trained.along).clamp_min(0);
            const auto strongest = brought.argmax();
            const bool absorbs = trained.angle.index_select(0, strongest.view({1})).item<double>() >= kAbsorbingCosine;
            const double all = brought.sum().item<double>();
            value.value = absorbs && all > 0 && brought.max().item<double>() >= kAbsorbingShare * all ? 1 : 0;
          }
          values.push_back(value);
        }
      });
  return values;
}

std::vector<BenchmarkValue> tpp(const std::vector<LabelledPrompts>& classes, std::int64_t k) {
  struct Trained {
    std::vector<LogisticModel> probes;
    std::vector<at::Tensor> latents;
  };
  const std::size_t count = classes.size();
  const Autoencoder& autoencoder = *classes.front().encoded->autoencoder;
  const Folds folds(classes, &EncodedPrompts::has_mean);
  const auto sizes = counted(classes);
  double all = 0;
  for (const double size : sizes) all += size;
  const auto others = [&](std::size_t one) {
    std::vector<std::size_t> rest;
    for (std::size_t other = 0; other < count; ++other) {
      if (other != one) rest.push_back(other);
    }
    return rest;
  };
  std::vector<BenchmarkValue> values;
  each_fold(
      classes, folds,
      [&](const Training& training) {
        Trained trained;
        for (std::size_t one = 0; one < count; ++one) {
          trained.probes.push_back(
              probe(training.of(one, &EncodedPrompts::mean_x), training.of(others(one), &EncodedPrompts::mean_x)));
          trained.latents.push_back(
              largest(raised_by(autoencoder, trained.probes.back(), training.of(one, &EncodedPrompts::mean_f),
                                training.of(others(one), &EncodedPrompts::mean_f)),
                      k));
        }
        return trained;
      },
      [&](const Trained& trained, std::size_t set, const std::vector<std::int64_t>& rows) {
        const auto x = part(classes[set], &EncodedPrompts::mean_x, rows);
        const auto f = part(classes[set], &EncodedPrompts::mean_f, rows);
        auto value = at::zeros({x.size(0)}, at::kDouble);
        for (std::size_t one = 0; one < count; ++one) {
          // Of this probe its class and the rest weigh the same.
          const double weight = all / (2 * (one == set ? sizes[one] : all - sizes[one]));
          const auto right = [&](const at::Tensor& of) {
            return says_yes(trained.probes[one], of).eq(one == set).to(at::kDouble);
          };
          const auto before = right(x);
          for (std::size_t ablated = 0; ablated < count; ++ablated) {
            const auto lost = before - right(without(autoencoder, x, f, trained.latents[ablated]));
            const double share = ablated == one ? 1.0 : -1.0 / static_cast<double>(count - 1);
            value += weight * share / static_cast<double>(count) * lost;
          }
        }
        for (std::size_t i = 0; i < rows.size(); ++i)
          values.push_back(
              {set, static_cast<std::size_t>(rows[i]), value[static_cast<std::int64_t>(i)].item<double>(), 0});
      });
  return values;
}

std::vector<BenchmarkValue> scr(const std::vector<LabelledPrompts>& sets, std::int64_t k) {
  struct Trained {
    LogisticModel biased, unbiased;
    at::Tensor latents;
    at::Tensor usual;  // [d_sae] float64: the mean over the biased probe's two sets, which weigh the same
  };
  const Autoencoder& autoencoder = *sets.front().encoded->autoencoder;
  const Folds folds(sets, &EncodedPrompts::has_mean);
  const auto sizes = counted(sets);
  std::vector<BenchmarkValue> values;
  each_fold(
      sets, folds,
      [&](const Training& training) {
        const auto x = [&](const std::vector<std::size_t>& of) { return training.of(of, &EncodedPrompts::mean_x); };
        const auto f = [&](const std::vector<std::size_t>& of) { return training.of(of, &EncodedPrompts::mean_f); };
        Trained trained{probe(x({0}), x({3})), probe(x({0, 1}), x({2, 3})), {}, {}};
        trained.usual = (f({0}).mean(0) + f({3}).mean(0)) / 2;
        // What is wanted is alike on both sides, so that what differs is what is spurious.
        const auto raised = raised_by(autoencoder, trained.biased, f({0}), f({1})) +
                            raised_by(autoencoder, trained.biased, f({2}), f({3}));
        trained.latents = largest(raised, k);
        return trained;
      },
      [&](const Trained& trained, std::size_t set, const std::vector<std::int64_t>& rows) {
        const auto x = part(sets[set], &EncodedPrompts::mean_x, rows);
        const auto f = part(sets[set], &EncodedPrompts::mean_f, rows);
        const bool wanted = set < 2;
        const auto right = [&](const LogisticModel& model, const at::Tensor& of) {
          return says_yes(model, of).eq(wanted).to(at::kDouble);
        };
        const auto before = right(trained.biased, x);
        const auto gained = right(trained.biased, without(autoencoder, x, f - trained.usual, trained.latents)) - before;
        const auto possible = right(trained.unbiased, x) - before;
        const double weight = 1 / sizes[set];
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const auto at = static_cast<std::int64_t>(i);
          values.push_back({set, static_cast<std::size_t>(rows[i]), weight * gained[at].item<double>(),
                            weight * possible[at].item<double>()});
        }
      });
  return values;
}

}  // namespace proviso::runtime

#pragma once

#include <cstdint>
#include <vector>

#include "runtime/autoencoders/encoded_prompts.hpp"

namespace proviso::runtime {

/// Measures of single latents on labelled prompts, in the manner of SAEBench (Karvonen et al. 2025, arXiv 2503.09532),
/// on sets that a small machine can run. Probes are logistic regressions; every number is of prompts that neither a
/// probe nor a choice of latents has seen: each set is cut into `kBenchmarkFolds` folds, clusters never apart, and each
/// fold is judged by what the others give. Prompts without an ordinary position (for `absorption`: whose last token is
/// none) are left out.
inline constexpr std::int64_t kBenchmarkFolds = 4;

/// A set of prompts with one label, and the cluster of each.
struct LabelledPrompts {
  const EncodedPrompts* encoded = nullptr;
  std::vector<std::int64_t> clusters;
};

/// What one prompt contributes: the measure is the mean of `value`, or of `scr` Σ `value` / Σ `whole`.
struct BenchmarkValue {
  std::size_t set = 0, prompt = 0;
  double value = 0, whole = 0;
};

/// Whether a probe on the `k` latents whose means over a prompt's positions differ most between two sets tells the
/// prompt's set: 0 or 1. (Gao et al. 2024 and Gurnee et al. 2023.)
std::vector<BenchmarkValue> sparse_probing(const std::vector<LabelledPrompts>& sides, std::int64_t k);
/// The same of a probe on the vector that the autoencoder reads: what sparse probing can come to.
std::vector<BenchmarkValue> dense_probing(const std::vector<LabelledPrompts>& sides);

/// Of the first set's prompts that a probe on the last token's vector tells for its own: 1 where the first set's `k`
/// latents are all silent and another one, whose decoder row points along the probe (cosine 0.025 or more), alone
/// brings 40 % or more of what all active latents bring along it (after Chanin et al. 2024, arXiv 2409.14507).
std::vector<BenchmarkValue> absorption(const std::vector<LabelledPrompts>& sides, std::int64_t k);

/// Targeted probe perturbation: for each class, what its probe (against all others, on the mean vector) loses in
/// accuracy where its own `k` latents are ablated, less what it loses where those of another class are, each side of a
/// probe weighing the same; the mean over classes. A class's latents are those that raise its probe most: the mean
/// difference of the activation times the decoder row's product with the probe.
std::vector<BenchmarkValue> tpp(const std::vector<LabelledPrompts>& classes, std::int64_t k);

/// Spurious correlation removal: sets are wanted & spurious, wanted, spurious, neither. A probe of what is wanted is
/// trained on the first and the last alone, so that it cannot tell wanted from spurious; then the `k` latents
/// that raise it most by the spurious difference are set to their mean over its two sets. `value` is the accuracy so
/// gained and `whole` what a probe trained on all four sets gains, each set weighing the same.
std::vector<BenchmarkValue> scr(const std::vector<LabelledPrompts>& sets, std::int64_t k);

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "dsl/rule_set.hpp"
#include "editing/leace.hpp"

namespace proviso::runtime {

/// The vectors that a feature of two sides is built from, [prompts, width] float64 each.
struct SideVectors {
  at::Tensor p, q;
};

/// Makes vectors white: W = Σ^(-1/2), symmetric, of a covariance drawn to a multiple of the identity as far as its
/// number of vectors asks for (`editing::shrunk_covariance`). LEACE (Belrose et al. 2023, arXiv 2306.03819) reads a
/// difference of means δ along W² δ, so a contrast under it is the direction that LEACE reads.
struct WhiteningMatrix {
  at::Tensor W;  // [width, width] float64
  double shrinkage = 0;
};
WhiteningMatrix whitening(const at::Tensor& covariance, std::int64_t count);
/// Of the sides' vectors about their sides' means.
WhiteningMatrix whitening(const SideVectors& sides);

/// How a direction is found between two sides.
struct SideDirection {
  bool probe = false;  ///< logistic regression; else the difference of means
  at::Tensor W;        // [width, width] float64, or undefined: not whitened
  at::Tensor sinks;    // [r, width] float64, orthonormal rows that the direction is made orthogonal to; or undefined

  /// Not normalised: W δ' with δ' the difference of means, or the probe's weights, of the whitened vectors.
  at::Tensor raw(const SideVectors& sides) const;
  at::Tensor operator()(const SideVectors& sides) const;
};

/// Cosines between the directions that two halves of the prompts give, each half of either side: under one whitening
/// where there is any.
struct Stability {
  std::optional<double> halves;  ///< every other prompt, and the rest; of four or more a side
  /// Halves drawn by seeds 0, 1, …, clusters never apart: their mean and the least. Of four clusters or more a side.
  std::int64_t draws = 0;
  double mean = 0, least = 0;
};
Stability stability(const SideDirection& direction, const SideVectors& sides,
                    const std::vector<std::int64_t>& p_clusters, const std::vector<std::int64_t>& q_clusters);

/// The seeds that `stability` draws halves by.
inline constexpr std::int64_t kStabilityDraws = 8;

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <variant>
#include <vector>

#include "dsl/site.hpp"
#include "editing/refusal.hpp"
#include "editing/weight_delta.hpp"

namespace proviso::editing {

/// What the activations a = (D y − b) / c of k features are to become at one site: A a + γ.
/// `suppress` by s: A = 1 − s, γ = 0; `amplify`: m, 0; `clamp`: 0, t; `steer`: 1, s.
struct FoldRequest {
  at::Tensor directions;  // D [k, width] float64, unit rows
  at::Tensor gains;       // A [k] float64
  at::Tensor targets;     // γ [k] float64
  at::Tensor zeros;       // b [k] float64
  at::Tensor scales;      // c [k] float64
};

/// The same for any affine change of a site, y' = y + write (constant − read y).
struct AffineWrite {
  at::Tensor write;     // [width, k] float64
  at::Tensor read;      // [k, width] float64
  at::Tensor constant;  // [k] float64
};
AffineWrite affine_write(const FoldRequest& request);

/// Takes the share `strength` of every direction away, measured from 0 (`project`).
FoldRequest removal(const at::Tensor& directions, double strength);

/// Singular values under this share of the largest count as 0, in hooks and folds alike.
inline constexpr double kPseudoInverseCutOff = 1e-5;

/// The least change of every row of `y` [n, width] that gives its activations the values asked for:
/// y + D⁺(Cγ − (I − A)(D y − b)), in float64. What a fold must equal.
at::Tensor least_change_write(const FoldRequest& request, const at::Tensor& y);

/// The request as changes of the weights that write `site`: W' = W − D⁺(I − A) D W of rank k at most, and
/// β' = β − D⁺(I − A) D β + D⁺((I − A) b + Cγ), biases and position table included. A refusal where
/// the site has no linear writer, or the offset has no bias to go into.
std::variant<std::vector<WeightDelta>, Refusal> fold(const FoldRequest& request, const model::Transformer& transformer,
                                                     const dsl::Site& site);
std::variant<std::vector<WeightDelta>, Refusal> fold(const AffineWrite& change, const model::Transformer& transformer,
                                                     const dsl::Site& site);

/// The same changes of the maps that write `site` with the lengths kept: what each input of a map writes (a column of
/// its weight, a row of a table, a bias) is scaled back to the norm that it had. The directions stay out of it; the
/// changes have full rank. What is left of nothing but the directions stays as it comes.
std::vector<WeightDelta> norms_kept(const std::vector<WeightDelta>& deltas, const model::Transformer& transformer,
                                    const dsl::Site& site);

}  // namespace proviso::editing

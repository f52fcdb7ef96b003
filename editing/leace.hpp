#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <variant>

#include "editing/fold.hpp"
#include "editing/refusal.hpp"

namespace proviso::editing {

/// Mean and covariance of vectors and of their classes, batch by batch in float64 (Chan et al.'s update).
class ClassMoments {
 public:
  ClassMoments(std::int64_t width, std::int64_t classes);

  /// `x` is [n, width]; `labels` [n] int64, from 0.
  void add(const at::Tensor& x, const at::Tensor& labels);

  std::int64_t count() const { return count_; }
  const at::Tensor& mean() const { return mean_; }  // [width]
  at::Tensor covariance() const;                    // Σxx [width, width]
  at::Tensor cross_covariance() const;              // Σxz [width, classes], z one-hot

 private:
  std::int64_t count_ = 0;
  at::Tensor mean_, class_mean_;  // [width], [classes]
  at::Tensor xx_, xz_;            // sums of products of what is left of the means
};

/// Σ drawn to a multiple of the identity of the same trace by the share that loses least in expectation (Bodnar, Gupta
/// and Parolya 2014); `share` is how far, from 0 to 1.
struct ShrunkCovariance {
  at::Tensor value;  // [width, width]
  double share = 0;
};
ShrunkCovariance shrunk_covariance(const at::Tensor& covariance, std::int64_t count);

/// The erasure as one affine map: no linear probe of the classes on the fitted vectors does better than a constant, and
/// the vectors move least for it.
struct Eraser {
  AffineWrite change;
  double shrinkage = 0;
  double least_change_share = 1;  ///< 1: LEACE's own map; under 1 mixed with the orthogonal one, to bound the variance
};

/// LEACE (Belrose et al. 2023): x' = x − P(x − μ), with P the oblique projection on the span of Σxz along which the
/// whitened change is least, of the singular values of Σ^(-1/2) Σxz over `threshold`. Where that would raise the total
/// variance it is mixed with the orthogonal projection until it does not. P leaves alone `sinks` (orthonormal rows
/// [r, width], or none): what attention sinks hold, which is far outside the vectors fitted and would be moved far.
/// Of rank 0 where no singular value is over `threshold`; a refusal where a trace lies along sinks.
std::variant<Eraser, Refusal> leace(const ClassMoments& moments, double threshold, const at::Tensor& sinks);

}  // namespace proviso::editing

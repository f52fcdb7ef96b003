#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace proviso::runtime {

/// What probes tell of classes from vectors they were not trained on: shares of right answers over stratified folds, up
/// to 5, each class with as many vectors in every fold as can be.
struct ProbeAccuracy {
  double logistic = 0;    ///< one regression a class; the likeliest class answers
  double neighbours = 0;  ///< of the 5 nearest vectors, which sees what is not linear, too
};

/// `x` [n, width] float64, `labels` [n] int64 from 0. Nothing where a class has fewer than two vectors.
std::optional<ProbeAccuracy> probe_accuracy(const at::Tensor& x, const at::Tensor& labels, std::int64_t classes);

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

namespace proviso::runtime {

/// The weight vector [width] of an L2-regularised logistic regression of labels (1, 0) on x [n, width]
/// (float64), with an unpenalised intercept: minimises Σ log-loss + ‖w‖²/2 on vectors scaled to unit root
/// mean square (scikit-learn's C = 1), by Newton's method with step halving.
at::Tensor logistic_direction(const at::Tensor& x, const at::Tensor& labels);

/// The same regression as a classifier: w·x + intercept is the log odds of label 1.
struct LogisticModel {
  at::Tensor weights;  // [width] float64
  double intercept = 0;
};
LogisticModel logistic_regression(const at::Tensor& x, const at::Tensor& labels);

}  // namespace proviso::runtime

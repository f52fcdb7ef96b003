#pragma once

#include <ATen/ATen.h>

#include <cmath>

namespace proviso::editing {

/// Adam with its usual constants, on one tensor (Kingma and Ba 2015, arXiv 1412.6980).
class Adam {
 public:
  Adam(const at::Tensor& like, double learning_rate)
      : mean_(at::zeros_like(like)), square_(at::zeros_like(like)), learning_rate_(learning_rate) {}

  /// What to add to the tensor.
  at::Tensor step(const at::Tensor& gradient) {
    ++count_;
    mean_ = kBeta1 * mean_ + (1 - kBeta1) * gradient;
    square_ = kBeta2 * square_ + (1 - kBeta2) * gradient.square();
    const auto mean = mean_ / (1 - std::pow(kBeta1, count_));
    const auto square = square_ / (1 - std::pow(kBeta2, count_));
    return -learning_rate_ * mean / (square.sqrt() + kEpsilon);
  }

 private:
  static constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
  at::Tensor mean_, square_;
  double learning_rate_;
  int count_ = 0;
};

}  // namespace proviso::editing

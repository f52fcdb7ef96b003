#include "runtime/features/logistic.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <tuple>

namespace proviso::runtime {

at::Tensor logistic_direction(const at::Tensor& x, const at::Tensor& labels) {
  return logistic_regression(x, labels).weights;
}

LogisticModel logistic_regression(const at::Tensor& x, const at::Tensor& labels) {
  constexpr int kMostSteps = 100;
  constexpr double kTolerance = 1e-10;
  const auto mean = x.mean(0);
  const auto centred = x - mean;
  const auto scale = centred.square().mean().sqrt().clamp_min(1e-300);
  // The weights lie in the span of the vectors: where these are fewer than the width, it is solved there.
  const bool few = x.size(0) < x.size(1);
  const auto basis = few ? std::get<0>(at::linalg_qr(centred.t())) : at::Tensor();  // [width, n]
  const auto scaled = (few ? centred.matmul(basis) : centred) / scale;
  const auto design = at::cat({scaled, at::ones({x.size(0), 1}, at::kDouble)}, 1);  // [n, width + 1]
  auto penalty = at::ones({design.size(1)}, at::kDouble);
  penalty[-1] = 0;

  const auto loss = [&](const at::Tensor& w) {
    const auto margin = design.matmul(w);
    const auto log_loss = at::softplus(margin) - labels * margin;
    return (log_loss.sum() + (penalty * w * w).sum() / 2).item<double>();
  };
  auto w = at::zeros({design.size(1)}, at::kDouble);
  double current = loss(w);
  for (int step = 0; step < kMostSteps; ++step) {
    const auto p = at::sigmoid(design.matmul(w));
    const auto gradient = design.t().matmul(p - labels) + penalty * w;
    // The intercept is not penalised: a tiny ridge keeps its row invertible where all p are 0 or 1.
    const auto hessian = design.t().matmul(design * (p * (1 - p)).unsqueeze(1)) + at::diag(penalty + 1e-10);
    const auto direction = at::linalg_solve(hessian, gradient);
    double size = 1;
    double next = loss(w - direction);
    while (next > current && size > 1e-10) {
      size /= 2;
      next = loss(w - size * direction);
    }
    if (next >= current) break;
    w = w - size * direction;
    const bool converged = current - next < kTolerance * std::abs(current);
    current = next;
    if (converged) break;
  }
  const auto own = w.narrow(0, 0, scaled.size(1)) / scale;
  LogisticModel model{few ? basis.matmul(own) : own, 0};
  model.intercept = (w[-1] - model.weights.dot(mean)).item<double>();
  return model;
}

}  // namespace proviso::runtime

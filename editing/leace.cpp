#include "editing/leace.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace proviso::editing {
namespace {

/// The rows R [r, width] with R V = I that weigh the space by M: (Vᵀ M V)⁻¹ Vᵀ M.
at::Tensor readout(const at::Tensor& V, const at::Tensor& M) {
  const auto VtM = V.t().mm(M);
  return at::linalg_solve(VtM.mm(V), VtM);
}

double trace_of_product(const at::Tensor& a, const at::Tensor& b) { return (a * b).sum().item<double>(); }

/// The share α of `own` in α own + (1 − α) orthogonal under which I − V R raises no variance: tr(P Σ Pᵀ) ≤ tr Σ for
/// P = I − V R means f(α) = tr(R Σ Rᵀ) − 2 tr(R Σ V) ≤ 0. The largest such α, or the one of least variance.
double bounded_share(const at::Tensor& own, const at::Tensor& orthogonal, const at::Tensor& V, const at::Tensor& S) {
  const auto D = own - orthogonal, SV = S.mm(V).t();
  const auto of = [&](const at::Tensor& R, const at::Tensor& Q) { return trace_of_product(R.mm(S), Q); };
  const double a = of(D, D), b = 2 * (of(D, orthogonal) - trace_of_product(D, SV)),
               c = of(orthogonal, orthogonal) - 2 * trace_of_product(orthogonal, SV);
  if (a + b + c <= 0 || a <= 0) return 1;
  const double discriminant = b * b - 4 * a * c;
  const double root = discriminant < 0 ? -b / (2 * a) : (-b + std::sqrt(discriminant)) / (2 * a);
  return std::clamp(root, 0.0, 1.0);
}

}  // namespace

ClassMoments::ClassMoments(std::int64_t width, std::int64_t classes)
    : mean_(at::zeros({width}, at::kDouble)),
      class_mean_(at::zeros({classes}, at::kDouble)),
      xx_(at::zeros({width, width}, at::kDouble)),
      xz_(at::zeros({width, classes}, at::kDouble)) {}

void ClassMoments::add(const at::Tensor& x, const at::Tensor& labels) {
  if (x.size(0) == 0) return;
  const auto X = x.cpu().to(at::kDouble);
  const auto Z = at::one_hot(labels.cpu(), class_mean_.size(0)).to(at::kDouble);
  count_ += X.size(0);
  const auto before = X - mean_;
  mean_ = mean_ + before.sum(0) / static_cast<double>(count_);
  class_mean_ = class_mean_ + (Z - class_mean_).sum(0) / static_cast<double>(count_);
  xx_.addmm_(before.t(), X - mean_);
  xz_.addmm_(before.t(), Z - class_mean_);
}

at::Tensor ClassMoments::covariance() const {
  const auto sum = (xx_ + xx_.t()) / 2;
  return sum / static_cast<double>(std::max<std::int64_t>(count_ - 1, 1));
}

at::Tensor ClassMoments::cross_covariance() const {
  return xz_ / static_cast<double>(std::max<std::int64_t>(count_ - 1, 1));
}

ShrunkCovariance shrunk_covariance(const at::Tensor& covariance, std::int64_t count) {
  const auto width = static_cast<double>(covariance.size(0));
  const double trace = covariance.trace().item<double>();
  const double target = trace * trace / width;  // ‖(tr Σ / p) I‖²
  const double spread = covariance.square().sum().item<double>() - target;
  const double share = spread > 0 ? std::clamp(trace * trace / (static_cast<double>(count) * spread), 0.0, 1.0) : 1.0;
  return {(1 - share) * covariance + share * trace / width * at::eye(covariance.size(0), at::kDouble), share};
}

std::variant<Eraser, Refusal> leace(const ClassMoments& moments, double threshold, const at::Tensor& sinks) {
  const at::NoGradGuard no_grad;
  const auto [S, shrinkage] = shrunk_covariance(moments.covariance(), moments.count());
  const auto [values, vectors] = at::linalg_eigh(S);  // ascending
  const double least =
      values[-1].item<double>() * static_cast<double>(values.size(0)) * std::numeric_limits<double>::epsilon();
  const auto held = values > std::max(least, std::numeric_limits<double>::min());
  const auto power = [&](double exponent) {
    const auto raised = at::where(held, values.clamp_min(1e-300).pow(exponent), at::zeros_like(values));
    return (vectors * raised).mm(vectors.t());
  };
  const auto [U, s, Vh] = at::linalg_svd(power(-0.5).mm(moments.cross_covariance()), /*full_matrices=*/false);
  const auto rank = (s > threshold).sum().item<std::int64_t>();
  if (rank == 0)
    return Eraser{
        {at::empty({S.size(0), 0}, at::kDouble), at::empty({0, S.size(0)}, at::kDouble), at::empty({0}, at::kDouble)}};
  const auto V = std::get<0>(at::linalg_qr(power(0.5).mm(U.narrow(1, 0, rank))));  // [width, rank]

  auto M = power(-1);
  auto N = at::eye(S.size(0), at::kDouble);
  if (sinks.defined() && sinks.size(0) > 0) {
    const auto beside = V - sinks.t().mm(sinks.mm(V));
    if (std::get<1>(at::linalg_svd(beside)).min().item<double>() < 1e-3)
      return Refusal{"what tells the classes apart there lies along the model's attention sinks"};
    // As if the variance along the sinks were infinite: P reads nothing of them.
    const auto MS = M.mm(sinks.t());
    M = M - MS.mm(at::linalg_solve(sinks.mm(MS), MS.t()));
    N = N - sinks.t().mm(sinks);
  }
  const auto own = readout(V, M), orthogonal = readout(V, N);
  const double share = bounded_share(own, orthogonal, V, S);
  const auto R = share * own + (1 - share) * orthogonal;
  if (!R.isfinite().all().item<bool>()) return Refusal{"the covariance there is singular: give more prompts"};
  return Eraser{{V, R, R.mv(moments.mean())}, shrinkage, share};
}

}  // namespace proviso::editing

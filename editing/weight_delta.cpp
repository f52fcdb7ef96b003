#include "editing/weight_delta.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace proviso::editing {
namespace {

/// Compares bits, not values: 0.0 and −0.0 are different bytes.
bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  const auto bits = a.element_size() == 2 ? at::kShort : a.element_size() == 4 ? at::kInt : at::kLong;
  return at::equal(a.view(bits), b.view(bits));
}

}  // namespace

double WeightDelta::norm() const {
  // ‖L R‖² = tr(LᵀL · R Rᵀ): no [d_out, d_in] product is formed.
  const auto squared = (left.t().mm(left) * right.mm(right.t()).t()).sum().item<double>();
  return std::sqrt(std::max(squared, 0.0));
}

WeightDelta whole_change(std::string tensor, const at::Tensor& change) {
  const auto whole = change.to(at::kDouble);
  const bool wide = whole.size(1) >= whole.size(0);
  const auto one = at::eye(std::min(whole.size(0), whole.size(1)), whole.options());
  return {std::move(tensor), wide ? one : whole, wide ? whole : one};
}

bool is_identity(const at::Tensor& factor) {
  return factor.dim() == 2 && factor.size(0) == factor.size(1) && factor.size(0) > 1 &&
         at::equal(factor, at::eye(factor.size(0), factor.options()));
}

at::Tensor tensor_to_change(const model::Transformer& transformer, const WeightDelta& delta) {
  const auto held = transformer.get(delta.tensor);
  const auto& options = transformer.options();
  return held.defined() ? held : at::zeros({delta.left.size(0)}, at::device(options.device).dtype(options.dtype));
}

at::Tensor changed_tensor(const at::Tensor& before, const WeightDelta& delta) {
  const auto left = delta.left.to(before.device()), right = delta.right.to(before.device());
  if (before.dim() == 1) return (before.to(at::kDouble) + left.mm(right).squeeze(1)).to(before.dtype());
  return before.to(at::kDouble).addmm(left, right).to(before.dtype());
}

AppliedDeltas::~AppliedDeltas() { revert(); }

bool AppliedDeltas::apply(const WeightDelta& delta) {
  const at::NoGradGuard no_grad;
  const auto before = tensor_to_change(transformer_, delta);
  auto after = changed_tensor(before, delta);
  if (same_bytes(before, after)) return false;
  replace(delta.tensor, std::move(after));
  return true;
}

void AppliedDeltas::replace(const std::string& tensor, at::Tensor value) {
  saved_.push_back({tensor, transformer_.get(tensor)});
  transformer_.set(tensor, std::move(value));
}

void AppliedDeltas::revert() {
  for (; !saved_.empty(); saved_.pop_back()) transformer_.set(saved_.back().tensor, saved_.back().before);
}

}  // namespace proviso::editing

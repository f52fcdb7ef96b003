#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "runtime/model/family.hpp"

namespace proviso::model {

/// The operations of the body, each differentiable in activations (weights have no gradient), and fused where they can
/// be.

/// x Wᵀ + b; an undefined bias is none.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

struct LinearPart {
  const at::Tensor& weight;
  const at::Tensor& bias;
};
/// Several maps of one input: one product where their weights lie side by side in memory.
std::vector<at::Tensor> project_parts(const at::Tensor& x, const std::vector<LinearPart>& parts);

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps);
/// The same with 1 + gain in its place, rounded once.
at::Tensor rms_norm_above_one(const at::Tensor& x, const at::Tensor& gain, double eps);
/// cap · tanh(x / cap); x itself where `cap` is 0.
at::Tensor soft_cap(const at::Tensor& x, double cap);
/// act(gate) · up, or act(gate) where `up` is undefined.
at::Tensor activate(Activation activation, const at::Tensor& gate, const at::Tensor& up);

}  // namespace proviso::model

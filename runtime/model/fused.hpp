#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace proviso::model {

/// Operations of the body by one loop or product for the CPU, with gradients, at activations alone, as fused as they
/// are. Where they do not run, callers use ATen's operations.

bool is_differentiated(const at::Tensor& x);

/// x Wᵀ + b by oneDNN, [n, in] · [out, in] -> [n, out]: in float32, whose products are faster than at::linear's there,
/// and under a gradient in bfloat16, where weights that come again are packed once.
bool fused_linear_runs_on(const at::Tensor& x);
at::Tensor fused_linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

/// x · gain / √(mean x² + eps), in float32 inside.
at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps);
/// silu(gate) · up; rows of both may be strided.
at::Tensor fused_silu_multiply(const at::Tensor& gate, const at::Tensor& up);
/// Pairs (i, i + width/2) of the first `width` elements of each head; cos and sin are [n, width/2]. In place where no
/// gradient flows.
at::Tensor fused_rotate(at::Tensor x, const at::Tensor& cos, const at::Tensor& sin, std::int64_t head_dim);

}  // namespace proviso::model

#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace proviso::model {

/// Fused loops for the CPU, which no gradient follows.

/// CPU, float32 or bfloat16.
bool kernels_run_on(const at::Tensor& x);

/// x · gain / √(mean x² + eps), in float32 inside; x is contiguous.
at::Tensor rms_norm_kernel(const at::Tensor& x, const at::Tensor& gain, double eps);
/// Its gradient at x, where `of_out`, contiguous too, is that at its result.
at::Tensor rms_norm_gradient_kernel(const at::Tensor& of_out, const at::Tensor& x, const at::Tensor& gain, double eps);
/// silu(gate) · up, into a new tensor; rows of both may be strided.
at::Tensor silu_multiply_kernel(const at::Tensor& gate, const at::Tensor& up);
/// Its gradients at gate and up; `of_out` is contiguous.
std::pair<at::Tensor, at::Tensor> silu_multiply_gradient_kernel(const at::Tensor& of_out, const at::Tensor& gate,
                                                                const at::Tensor& up);
/// Pairs (i, i + width/2) of the first `width` elements of each head; cos and sin are [n, width/2].
void rotate_in_place(at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, std::int64_t head_dim);

/// x Wᵀ for few rows of float32, where reading W bounds the time: [n, in] · [out, in] -> [n, out].
bool few_rows_run_on(const at::Tensor& x, const at::Tensor& weight);
at::Tensor few_rows_linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace proviso::model

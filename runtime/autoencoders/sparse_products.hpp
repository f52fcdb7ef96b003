#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

namespace proviso::runtime {

// Products with a matrix F [n, latents] of which each row holds m values, F[i, index[i, j]] = values[i, j] (float32,
// int64; both [n, m]; zeros cost nothing). On a CPU only the rows of what fires are touched; elsewhere F is made dense.

/// F · rows [n, d], for rows [latents, d].
at::Tensor sparse_decode(const at::Tensor& values, const at::Tensor& index, const at::Tensor& rows);

/// x[i] · rows[index[i, j]]: [n, m], for x [n, d].
at::Tensor row_products(const at::Tensor& x, const at::Tensor& index, const at::Tensor& rows);

/// Fᵀ · x [latents, d]: the gradient of `rows` where x is that of `sparse_decode`'s result.
at::Tensor sparse_gradient(const at::Tensor& values, const at::Tensor& index, const at::Tensor& x,
                           std::int64_t latents);

/// The k largest of each row of x [n, m], float32 or bfloat16, in the order of their columns: values (float32) and
/// columns [n, k]. Of equals the first columns count; what is no number counts as less than any. On a CPU many times as
/// fast as `topk` for k far under m.
std::pair<at::Tensor, at::Tensor> largest(const at::Tensor& x, std::int64_t k);

}  // namespace proviso::runtime

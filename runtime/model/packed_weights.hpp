#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace proviso::model {

/// Whether this build of LibTorch and this machine have oneDNN's linear maps.
bool onednn_runs();

/// x Wᵀ + b by oneDNN, [n, in] · [out, in] -> [n, out]; a weight may be packed.
at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

/// `weight`, or its transpose, as oneDNN packs it in every product: what optimises passes the same weights hundreds of
/// times. Packed once a weight has come a third time and free memory is plenty, and kept while the weight lives; until
/// then, as it is. A weight that was changed in place by ATen's operations is packed anew.
at::Tensor packed_where_reused(const at::Tensor& weight, bool transposed);

}  // namespace proviso::model

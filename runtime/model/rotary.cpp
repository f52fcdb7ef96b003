#include "runtime/model/rotary.hpp"

#include <ATen/ATen.h>

#include "runtime/model/fused.hpp"
#include "runtime/model/kernels.hpp"

namespace proviso::model {

RotaryTable rotary_table(const ModelConfig& config, const at::Tensor& positions) {
  const at::Tensor frequencies = at::tensor(rope_frequencies(config), at::kFloat).to(positions.device());
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) * frequencies;
  return {at::cos(angles), at::sin(angles)};
}

at::Tensor rotate(at::Tensor x, const RotaryTable& table, std::int64_t head_dim, bool shared) {
  if (kernels_run_on(x)) {
    if (shared && !is_differentiated(x)) x = x.clone();
    return fused_rotate(x, table.cos, table.sin, head_dim);
  }
  const std::int64_t n = x.size(0);
  const at::Tensor heads = x.reshape({n, x.size(1) / head_dim, head_dim});
  const std::int64_t half = table.cos.size(1);
  const at::Tensor first = heads.narrow(2, 0, half), second = heads.narrow(2, half, half);
  const at::Tensor cos = table.cos.unsqueeze(1).to(x.dtype()), sin = table.sin.unsqueeze(1).to(x.dtype());
  const at::Tensor rest = heads.narrow(2, 2 * half, head_dim - 2 * half);
  return at::cat({first * cos - second * sin, second * cos + first * sin, rest}, 2).view({n, x.size(1)});
}

}  // namespace proviso::model

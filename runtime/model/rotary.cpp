#include "runtime/model/rotary.hpp"

#include <ATen/ATen.h>

#include "runtime/model/kernels.hpp"

namespace proviso::model {

RotaryTable rotary_table(const ModelConfig& config, const at::Tensor& positions) {
  const at::Tensor frequencies = at::tensor(rope_frequencies(config), at::kFloat).to(positions.device());
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) * frequencies;
  return {at::cos(angles), at::sin(angles)};
}

at::Tensor rotate(at::Tensor x, const RotaryTable& table, std::int64_t head_dim, bool shared) {
  if (!is_differentiated(x) && kernels_run_on(x)) {
    if (shared) x = x.clone();
    rotate_in_place(x, table.cos, table.sin, head_dim);
    return x;
  }
  const std::int64_t n = x.size(0);
  const at::Tensor halves = x.reshape({n, x.size(1) / head_dim, 2, head_dim / 2});
  const at::Tensor first = halves.select(2, 0), second = halves.select(2, 1);
  const at::Tensor cos = table.cos.unsqueeze(1).to(x.dtype()), sin = table.sin.unsqueeze(1).to(x.dtype());
  return at::stack({first * cos - second * sin, second * cos + first * sin}, 2).view({n, x.size(1)});
}

}  // namespace proviso::model

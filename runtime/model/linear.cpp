#include "runtime/model/linear.hpp"

#include <ATen/ATen.h>

#include <optional>

#include "runtime/model/fused.hpp"
#include "runtime/model/kernels.hpp"

namespace proviso::model {

namespace {

bool side_by_side(const std::vector<LinearPart>& parts) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const at::Tensor& weight = parts[i].weight;
    if (parts[i].bias.defined()) return false;
    if (i + 1 < parts.size() &&
        static_cast<const char*>(weight.const_data_ptr()) + weight.nbytes() != parts[i + 1].weight.const_data_ptr()) {
      return false;
    }
  }
  return true;
}

}  // namespace

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const std::optional<at::Tensor> added = bias.defined() ? std::optional(bias) : std::nullopt;
  if (!is_differentiated(x) && few_rows_run_on(x, weight)) {
    at::Tensor out = few_rows_linear(x, weight);
    return added ? out.add_(bias) : out;
  }
  return fused_linear_runs_on(x) ? fused_linear(x, weight, added) : at::linear(x, weight, added);
}

std::vector<at::Tensor> project_parts(const at::Tensor& x, const std::vector<LinearPart>& parts) {
  std::vector<at::Tensor> outputs;
  if (is_differentiated(x) || !side_by_side(parts)) {
    for (const LinearPart& part : parts) outputs.push_back(project(x, part.weight, part.bias));
    return outputs;
  }
  std::vector<std::int64_t> sizes;
  std::int64_t all = 0;
  for (const LinearPart& part : parts) {
    sizes.push_back(part.weight.size(0));
    all += sizes.back();
  }
  // The parts outlive this view, which no gradient keeps.
  const at::Tensor& first = parts.front().weight;
  const at::Tensor joined =
      at::from_blob(const_cast<void*>(first.const_data_ptr()), {all, first.size(1)}, first.options());
  return project(x, joined, {}).split_with_sizes(sizes, 1);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps) {
  if (kernels_run_on(x)) return fused_rms_norm(x, gain, eps);
  const at::Tensor values = x.to(at::kFloat);
  const at::Tensor scaled = values * at::rsqrt(values.square().mean(-1, true) + eps);
  return scaled.to(x.dtype()) * gain;
}

at::Tensor rms_norm_above_one(const at::Tensor& x, const at::Tensor& gain, double eps) {
  const at::Tensor values = x.to(at::kFloat);
  const at::Tensor scaled = values * at::rsqrt(values.square().mean(-1, true) + eps);
  return (scaled * (gain.to(at::kFloat) + 1)).to(x.dtype());
}

at::Tensor soft_cap(const at::Tensor& x, double cap) { return cap == 0 ? x : at::tanh(x / cap) * cap; }

at::Tensor activate(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  if (activation == Activation::silu && up.defined() && kernels_run_on(gate)) return fused_silu_multiply(gate, up);
  const at::Tensor activated = activation == Activation::silu   ? at::silu(gate)
                               : activation == Activation::gelu ? at::gelu(gate, "none")
                                                                : at::gelu(gate, "tanh");
  return up.defined() ? activated * up : activated;
}

}  // namespace proviso::model

#include "runtime/model/linear.hpp"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "runtime/model/kernels.hpp"

namespace proviso::model {

namespace {

bool side_by_side(const std::vector<LinearPart>& parts) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const at::Tensor& weight = parts[i].weight;
    if (parts[i].bias.defined() || is_differentiated(weight)) return false;
    if (i + 1 < parts.size() &&
        static_cast<const char*>(weight.const_data_ptr()) + weight.nbytes() != parts[i + 1].weight.const_data_ptr()) {
      return false;
    }
  }
  return true;
}

/// oneDNN's product, which is faster than at::linear's in float32; nothing where this build of LibTorch or this
/// machine has none.
const auto* onednn_linear() {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                               c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  using Operator = c10::TypedOperatorHandle<Signature>;
  static const std::optional<Operator> found = []() -> std::optional<Operator> {
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema || !at::globalContext().userEnabledMkldnn()) return std::nullopt;
    return schema->typed<Signature>();
  }();
  return found ? &*found : nullptr;
}

bool onednn_runs_on(const at::Tensor& x) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && onednn_linear() != nullptr;
}

at::Tensor onednn_product(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return onednn_linear()->call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

/// The same where a gradient flows to x alone.
struct FrozenLinear : torch::autograd::Function<FrozenLinear> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    context->save_for_backward({weight});
    return onednn_product(x, weight, bias);
  }
  static std::vector<at::Tensor> backward(torch::autograd::AutogradContext* context,
                                          const std::vector<at::Tensor>& of_out) {
    return {onednn_product(of_out[0].contiguous(), context->get_saved_variables()[0].t(), std::nullopt), {}, {}};
  }
};

}  // namespace

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const std::optional<at::Tensor> added = bias.defined() ? std::optional(bias) : std::nullopt;
  const bool frozen = !is_differentiated(weight) && !(added && is_differentiated(bias));
  const bool differentiated = !frozen || is_differentiated(x);
  if (!differentiated && few_rows_run_on(x, weight)) {
    at::Tensor out = few_rows_linear(x, weight);
    return added ? out.add_(bias) : out;
  }
  if (frozen && onednn_runs_on(x))
    return differentiated ? FrozenLinear::apply(x, weight, added) : onednn_product(x, weight, added);
  return at::linear(x, weight, added);
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
  if (!is_differentiated(x) && !is_differentiated(gain) && kernels_run_on(x)) return rms_norm_fused(x, gain, eps);
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
  if (activation == Activation::silu && up.defined() && kernels_run_on(gate) && !is_differentiated(gate) &&
      !is_differentiated(up)) {
    return silu_multiply_fused(gate, up);
  }
  const at::Tensor activated = activation == Activation::silu   ? at::silu(gate)
                               : activation == Activation::gelu ? at::gelu(gate, "none")
                                                                : at::gelu(gate, "tanh");
  return up.defined() ? activated * up : activated;
}

}  // namespace proviso::model

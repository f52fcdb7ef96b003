#include "runtime/model/fused.hpp"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "runtime/model/kernels.hpp"
#include "runtime/model/packed_weights.hpp"

namespace proviso::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = std::vector<at::Tensor>;

struct Linear : Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    context->save_for_backward({weight});
    return onednn_linear(x, packed_where_reused(weight, false), bias);
  }
  static Tensors backward(AutogradContext* context, const Tensors& of_out) {
    const Tensors saved = context->get_saved_variables();
    return {onednn_linear(of_out[0].contiguous(), packed_where_reused(saved[0], true), std::nullopt), {}, {}};
  }
};

struct RmsNorm : Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gain, double eps) {
    context->save_for_backward({x, gain});
    context->saved_data["eps"] = eps;
    return rms_norm_kernel(x, gain, eps);
  }
  static Tensors backward(AutogradContext* context, const Tensors& of_out) {
    const Tensors saved = context->get_saved_variables();
    const double eps = context->saved_data["eps"].toDouble();
    return {rms_norm_gradient_kernel(of_out[0].contiguous(), saved[0], saved[1], eps), {}, {}};
  }
};

struct SiluMultiply : Function<SiluMultiply> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return silu_multiply_kernel(gate, up);
  }
  static Tensors backward(AutogradContext* context, const Tensors& of_out) {
    const Tensors saved = context->get_saved_variables();
    auto [of_gate, of_up] = silu_multiply_gradient_kernel(of_out[0].contiguous(), saved[0], saved[1]);
    return {of_gate, of_up};
  }
};

/// The gradient of a rotation turns back.
struct Rotate : Function<Rotate> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                            std::int64_t head_dim) {
    context->save_for_backward({cos, sin});
    context->saved_data["head_dim"] = head_dim;
    return turned(x, cos, sin, head_dim);
  }
  static Tensors backward(AutogradContext* context, const Tensors& of_out) {
    const Tensors saved = context->get_saved_variables();
    return {turned(of_out[0], saved[0], saved[1].neg(), context->saved_data["head_dim"].toInt()), {}, {}, {}};
  }

 private:
  static at::Tensor turned(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, std::int64_t head_dim) {
    at::Tensor out = x.clone(at::MemoryFormat::Contiguous);
    rotate_in_place(out, cos, sin, head_dim);
    return out;
  }
};

}  // namespace

bool is_differentiated(const at::Tensor& x) { return c10::GradMode::is_enabled() && x.requires_grad(); }

bool fused_linear_runs_on(const at::Tensor& x) {
  const bool has_it = x.scalar_type() == at::kFloat || (x.scalar_type() == at::kBFloat16 && is_differentiated(x));
  return x.device().is_cpu() && has_it && onednn_runs();
}

at::Tensor fused_linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return is_differentiated(x) ? Linear::apply(x, weight, bias) : onednn_linear(x, weight, bias);
}

at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps) {
  const at::Tensor in = x.contiguous();
  return is_differentiated(in) ? RmsNorm::apply(in, gain, eps) : rms_norm_kernel(in, gain, eps);
}

at::Tensor fused_silu_multiply(const at::Tensor& of_gate, const at::Tensor& of_up) {
  const auto in_rows = [](const at::Tensor& x) { return x.stride(1) == 1 ? x : x.contiguous(); };
  const at::Tensor gate = in_rows(of_gate), up = in_rows(of_up);
  return is_differentiated(gate) || is_differentiated(up) ? SiluMultiply::apply(gate, up)
                                                          : silu_multiply_kernel(gate, up);
}

at::Tensor fused_rotate(at::Tensor x, const at::Tensor& cos, const at::Tensor& sin, std::int64_t head_dim) {
  if (is_differentiated(x)) return Rotate::apply(x, cos, sin, head_dim);
  rotate_in_place(x, cos, sin, head_dim);
  return x;
}

}  // namespace proviso::model

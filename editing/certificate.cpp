#include "editing/certificate.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <span>
#include <sstream>

#include "runtime/formats/sha256.hpp"

namespace proviso::editing {

std::string short_text(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string tensor_sha256(const at::Tensor& tensor) {
  const auto bytes = tensor.to(at::kCPU).contiguous();
  return model::sha256_hex({static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()});
}

TensorChange describe_change(const model::Transformer& transformer, const WeightDelta& delta) {
  const at::NoGradGuard no_grad;
  const auto before = tensor_to_change(transformer, delta);
  TensorChange change;
  change.tensor = delta.tensor;
  if (transformer.get(delta.tensor).defined()) change.sha256_before = tensor_sha256(before);
  change.sha256_after = tensor_sha256(changed_tensor(before, delta));
  change.shape = before.sizes().vec();
  change.rank = delta.left.size(1);
  change.norm = delta.norm();
  const auto norm_before = before.to(at::kDouble).norm().item<double>();
  if (norm_before > 0) change.relative_norm = change.norm / norm_before;
  return change;
}

}  // namespace proviso::editing

#include "editing/float_tensors.hpp"

#include <ATen/ATen.h>

#include "runtime/formats/safetensors.hpp"

namespace proviso::editing {

void write_float_tensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                         const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> kept;  // the bytes that are written
  std::vector<model::TensorToWrite> written;
  for (const auto& [name, tensor] : tensors) {
    kept.push_back(tensor.to(at::kCPU, at::kFloat).contiguous());
    written.push_back({name,
                       model::ElementType::f32,
                       kept.back().sizes().vec(),
                       {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()}});
  }
  model::write_safetensors(path, written, metadata);
}

}  // namespace proviso::editing

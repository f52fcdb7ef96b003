#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace proviso::editing {

/// A safetensors file of float32 tensors, in the order given; atomically.
void write_float_tensors(const std::string& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                         const std::map<std::string, std::string>& metadata);

}  // namespace proviso::editing

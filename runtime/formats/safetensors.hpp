#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

/// A safetensors file, header read and checked (overlaps, bounds, sizes, duplicate names), data mapped.
struct SafetensorsFile {
  std::vector<StoredTensor> tensors;            ///< in the order of their offsets
  std::map<std::string, std::string> metadata;  ///< `__metadata__`
};

SafetensorsFile read_safetensors(const std::string& path);

/// A tensor to be written. `bytes` are row-major elements of `type` (F32, F16 or BF16).
struct TensorToWrite {
  std::string name;
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes atomically: a temporary file beside `path`, synced, then renamed.
void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace proviso::model

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

/// A safetensors file, header read and checked (overlaps, bounds, sizes, duplicate names), data mapped.
struct SafetensorsFile {
  std::vector<StoredTensor> tensors;            ///< in the order of their offsets
  std::map<std::string, std::string> metadata;  ///< `__metadata__`
  std::map<std::string, std::string> unread;    ///< name to type, of tensors that cannot be weights: I64, BOOL …
};

SafetensorsFile read_safetensors(const std::string& path);

/// Writes atomically, in the order given and with the data aligned to 8 bytes: a temporary file beside
/// `path`, synced, then renamed. Tensors are F32, F16 or BF16. Files meant for `transformers` carry the metadata
/// `format: pt`.
void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// The same bytes, where they go into a file among others.
std::string safetensors_bytes(const std::vector<TensorToWrite>& tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace proviso::model

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

struct GgufValue;
using GgufArray = std::vector<GgufValue>;
/// Integers of all widths are held as int64 (uint64 beyond it is an error), floats as double.
struct GgufValue {
  std::variant<bool, std::int64_t, double, std::string, GgufArray> value;
};

/// A GGUF file (versions 2 and 3), metadata and tensor table read and checked, data mapped.
/// Shapes are given slowest dimension first (GGUF stores them fastest first).
struct GgufFile {
  std::map<std::string, GgufValue> metadata;
  std::vector<StoredTensor> tensors;

  const GgufValue* find(const std::string& key) const;
};

GgufFile read_gguf(const std::string& path);

}  // namespace proviso::model

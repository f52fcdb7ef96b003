#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
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
  std::vector<StoredTensor> tensors;  ///< in the order of their data

  std::uint32_t version = 3;
  std::uint64_t alignment = 32;               ///< of every tensor's data
  std::uint64_t metadata_count = 0;           ///< pairs
  std::span<const std::byte> metadata_bytes;  ///< all pairs as stored
  std::shared_ptr<const MappedFile> file;     ///< in which those bytes lie

  const GgufValue* find(const std::string& key) const;
};

GgufFile read_gguf(const std::string& path);

/// Writes a file with the metadata of `source`, byte for byte, and `tensors` in the order given; atomically. A file
/// whose tensors lie without gaps comes out as it was where they are its own.
void write_gguf(const std::string& path, const GgufFile& source, const std::vector<TensorToWrite>& tensors);

}  // namespace proviso::model

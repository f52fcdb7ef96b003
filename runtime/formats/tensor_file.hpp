#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace proviso::model {

/// A file at fault (missing, damaged, of a kind that is not read): exit 2. The message names the file
/// and the cure.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The machine at fault (disk full, out of memory): exit 3.
struct MachineError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A read-only memory map of a whole file; the bytes live as long as any copy of the pointer.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  MappedFile(std::string path, const std::byte* data, std::size_t size);
  std::string path_;
  const std::byte* data_;
  std::size_t size_;
};

/// How a tensor's elements are stored. Block formats hold 32 (Q4_0 … Q8_0) or 256 (K) elements a block.
enum class ElementType {
#define PROVISO_ELEMENT_TYPE(type, ...) type,
#include "runtime/formats/element_types.def"
#undef PROVISO_ELEMENT_TYPE
};

std::string_view element_type_name(ElementType type);  ///< "Q4_1"
std::optional<ElementType> element_type_from_name(std::string_view name);
/// Bytes that `elements` take; throws `InputError` where they do not fill whole blocks.
std::size_t stored_bytes(ElementType type, std::size_t elements);
std::size_t block_elements(ElementType type);  ///< 1 for the plain types

/// The product of the sizes (1 for none); nothing where one is negative or the product leaves int64.
std::optional<std::int64_t> element_count(std::span<const std::int64_t> shape);
/// "[49152, 576]", for messages.
std::string shape_text(std::span<const std::int64_t> shape);

/// A tensor in a mapped file. Nothing is read before `bytes` is touched.
struct StoredTensor {
  std::string name;
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;  ///< row-major, slowest first, in either format
  std::span<const std::byte> bytes;
  std::shared_ptr<const MappedFile> file;

  std::int64_t elements() const;
};

/// A tensor to be written. `bytes` are row-major elements, or blocks, of `type`.
struct TensorToWrite {
  std::string name;
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;  ///< slowest first
  std::span<const std::byte> bytes;
};

/// Expands to float32 (exact for every type but the block formats, whose value is defined by ggml).
/// `out` holds `tensor.elements()` values.
void dequantize(const StoredTensor& tensor, std::span<float> out);

}  // namespace proviso::model

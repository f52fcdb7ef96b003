#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace proviso::test {

/// Puts a GGUF file together, sound or not: `set("llama.block_count", 2u)`, `tensor("output.weight", {32, 16}, 0,
/// bytes)`.
class GgufBuilder {
 public:
  std::uint32_t version = 3;

  void set(std::string_view key, std::uint32_t value) { pair(key, 4, raw(value)); }
  void set(std::string_view key, float value) { pair(key, 6, raw(value)); }
  void set(std::string_view key, bool value) { pair(key, 7, raw(static_cast<std::uint8_t>(value))); }
  void set(std::string_view key, const char* value) { pair(key, 8, text(value)); }
  void set(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes = raw(std::uint32_t{8}) + raw(std::uint64_t{values.size()});
    for (const std::string& value : values) bytes += text(value);
    pair(key, 9, bytes);
  }
  /// Any value by its type's number and bytes.
  void pair(std::string_view key, std::uint32_t type, const std::string& value) {
    ++pairs_;
    metadata_ += text(key) + raw(type) + value;
  }

  /// `shape` is slowest first, as everywhere but in the file. Data are padded to 32 bytes.
  void tensor(std::string_view name, const std::vector<std::int64_t>& shape, std::uint32_t ggml_id,
              const std::string& bytes) {
    entry(name, shape, ggml_id, data_.size());
    data_ += bytes;
    data_.resize((data_.size() + 31) / 32 * 32);
  }
  void entry(std::string_view name, const std::vector<std::int64_t>& shape, std::uint32_t ggml_id,
             std::uint64_t offset) {
    ++tensors_;
    table_ += text(name) + raw(static_cast<std::uint32_t>(shape.size()));
    for (auto size = shape.rbegin(); size != shape.rend(); ++size) table_ += raw(static_cast<std::uint64_t>(*size));
    table_ += raw(ggml_id) + raw(offset);
  }

  std::string bytes() const {
    std::string head = "GGUF" + raw(version) + raw(tensors_) + raw(pairs_) + metadata_ + table_;
    head.resize((head.size() + 31) / 32 * 32);
    return head + data_;
  }

  template <class T>
  static std::string raw(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  }
  static std::string text(std::string_view value) { return raw(std::uint64_t{value.size()}) + std::string(value); }

 private:
  std::uint64_t tensors_ = 0, pairs_ = 0;
  std::string metadata_, table_, data_;
};

}  // namespace proviso::test

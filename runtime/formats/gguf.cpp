#include "runtime/formats/gguf.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "runtime/formats/atomic_file.hpp"

namespace proviso::model {

namespace {

// What a count in the file may ask for. A vocabulary of 256,000 tokens with its merges takes 1.4 million
// values, and a value takes 40 bytes here: the bound keeps a small hostile file from asking for gigabytes.
constexpr std::uint64_t kMostArrayValues = std::uint64_t{1} << 22;
constexpr int kMostArrayDepth = 4;
constexpr std::uint32_t kMostDimensions = 4;
constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint64_t kMostAlignment = std::uint64_t{1} << 20;

enum class ValueType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

std::optional<ElementType> element_type(std::uint32_t ggml_id) {
  switch (ggml_id) {
#define PROVISO_ELEMENT_TYPE(type, text, id, block_elements, block_bytes) \
  case id:                                                                \
    return ElementType::type;
#include "runtime/formats/element_types.def"
#undef PROVISO_ELEMENT_TYPE
  }
  return std::nullopt;
}

std::uint32_t ggml_id(ElementType type) {
  static constexpr std::uint32_t kIds[] = {
#define PROVISO_ELEMENT_TYPE(type, text, id, block_elements, block_bytes) id,
#include "runtime/formats/element_types.def"
#undef PROVISO_ELEMENT_TYPE
  };
  return kIds[static_cast<std::size_t>(type)];
}

std::string read_types() {
  std::string names;
#define PROVISO_ELEMENT_TYPE(type, text, ...) names += (names.empty() ? "" : ", ") + std::string(text);
#include "runtime/formats/element_types.def"
#undef PROVISO_ELEMENT_TYPE
  return names;
}

/// Reads forward through the bytes; every step is checked against what is left of them.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  std::size_t position() const { return position_; }
  std::size_t left() const { return bytes_.size() - position_; }

  template <class T>
  T read() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string read_string() {
    const std::span<const std::byte> text = take(read<std::uint64_t>());
    return std::string(reinterpret_cast<const char*>(text.data()), text.size());
  }

  /// A number of things that take at least `bytes_each`: more than the rest of the file holds is refused.
  std::uint64_t read_count(std::size_t bytes_each, const char* what) {
    const auto count = read<std::uint64_t>();
    if (count > left() / bytes_each) fail("counts " + std::to_string(count) + " " + what + ", more than it can hold");
    return count;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(path_ + ": " + what + "; the file is damaged: fetch it again");
  }

 private:
  std::span<const std::byte> take(std::uint64_t size) {
    if (size > left()) fail("ends in the middle of its header (byte " + std::to_string(bytes_.size()) + ")");
    const std::span<const std::byte> taken = bytes_.subspan(position_, size);
    position_ += size;
    return taken;
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  std::size_t position_ = 0;
};

class ValueReader {
 public:
  explicit ValueReader(Cursor& cursor) : cursor_(cursor) {}

  GgufValue read(const std::string& key) { return read(ValueType{cursor_.read<std::uint32_t>()}, key, 0); }

 private:
  template <class T>
  GgufValue integer() {
    return {static_cast<std::int64_t>(cursor_.read<T>())};
  }

  GgufValue read(ValueType type, const std::string& key, int depth) {
    switch (type) {
      case ValueType::u8:
        return integer<std::uint8_t>();
      case ValueType::i8:
        return integer<std::int8_t>();
      case ValueType::u16:
        return integer<std::uint16_t>();
      case ValueType::i16:
        return integer<std::int16_t>();
      case ValueType::u32:
        return integer<std::uint32_t>();
      case ValueType::i32:
        return integer<std::int32_t>();
      case ValueType::i64:
        return integer<std::int64_t>();
      case ValueType::u64: {
        const auto value = cursor_.read<std::uint64_t>();
        if (!std::in_range<std::int64_t>(value)) cursor_.fail("'" + key + "' holds a number beyond 2^63");
        return {static_cast<std::int64_t>(value)};
      }
      case ValueType::f32:
        return {static_cast<double>(cursor_.read<float>())};
      case ValueType::f64:
        return {cursor_.read<double>()};
      case ValueType::boolean: {
        const auto value = cursor_.read<std::uint8_t>();
        if (value > 1) cursor_.fail("'" + key + "' is neither true nor false");
        return {value == 1};
      }
      case ValueType::string:
        return {cursor_.read_string()};
      case ValueType::array:
        return {read_array(key, depth + 1)};
    }
    cursor_.fail("'" + key + "' has the unknown type " + std::to_string(static_cast<std::uint32_t>(type)));
  }

  GgufArray read_array(const std::string& key, int depth) {
    if (depth > kMostArrayDepth) cursor_.fail("'" + key + "' nests arrays too deeply");
    const auto type = ValueType{cursor_.read<std::uint32_t>()};
    const std::uint64_t count = cursor_.read_count(least_bytes(type), "array values");
    array_values_ += count;
    if (array_values_ > kMostArrayValues)
      cursor_.fail("holds more than " + std::to_string(kMostArrayValues) + " array values");
    GgufArray values;
    values.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) values.push_back(read(type, key, depth));
    return values;
  }

  static std::size_t least_bytes(ValueType type) {
    switch (type) {
      case ValueType::u16:
      case ValueType::i16:
        return 2;
      case ValueType::u32:
      case ValueType::i32:
      case ValueType::f32:
        return 4;
      case ValueType::string:
      case ValueType::u64:
      case ValueType::i64:
      case ValueType::f64:
        return 8;
      case ValueType::array:
        return 12;
      default:
        return 1;
    }
  }

  Cursor& cursor_;
  std::uint64_t array_values_ = 0;
};

struct TableEntry {
  StoredTensor tensor;
  std::uint64_t offset = 0;  // from the start of the data
  std::size_t bytes = 0;
};

TableEntry read_table_entry(Cursor& cursor, const std::string& path) {
  TableEntry entry;
  StoredTensor& tensor = entry.tensor;
  tensor.name = cursor.read_string();
  const std::string what = "tensor '" + tensor.name + "'";
  const auto dimensions = cursor.read<std::uint32_t>();
  if (dimensions == 0 || dimensions > kMostDimensions)
    cursor.fail(what + " has " + std::to_string(dimensions) + " dimensions");
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto size = cursor.read<std::uint64_t>();
    if (size == 0 || !std::in_range<std::int64_t>(size)) cursor.fail(what + " has the size " + std::to_string(size));
    tensor.shape.push_back(static_cast<std::int64_t>(size));
  }
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  const auto ggml_id = cursor.read<std::uint32_t>();
  const std::optional<ElementType> type = element_type(ggml_id);
  if (!type) {
    throw InputError(path + ": " + what + " is stored as ggml type " + std::to_string(ggml_id) +
                     ", which is not read; use a file quantised to one of " + read_types());
  }
  tensor.type = *type;
  entry.offset = cursor.read<std::uint64_t>();
  const std::optional<std::int64_t> count = element_count(tensor.shape);
  if (!count) cursor.fail(what + " has an impossible shape " + shape_text(tensor.shape));
  if (static_cast<std::uint64_t>(tensor.shape.back()) % block_elements(*type) != 0) {
    cursor.fail(what + " has rows of " + std::to_string(tensor.shape.back()) + ", which are no whole blocks of " +
                std::string(element_type_name(*type)));
  }
  entry.bytes = stored_bytes(*type, static_cast<std::size_t>(*count));
  return entry;
}

std::uint64_t aligned(std::uint64_t offset, std::uint64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

std::uint64_t data_alignment(const GgufFile& file, const Cursor& cursor) {
  const GgufValue* value = file.find("general.alignment");
  if (!value) return 32;
  const auto* alignment = std::get_if<std::int64_t>(&value->value);
  if (!alignment || *alignment <= 0 || static_cast<std::uint64_t>(*alignment) > kMostAlignment ||
      !std::has_single_bit(static_cast<std::uint64_t>(*alignment))) {
    cursor.fail("'general.alignment' is no power of two");
  }
  return static_cast<std::uint64_t>(*alignment);
}

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

const GgufValue* GgufFile::find(const std::string& key) const {
  const auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

GgufFile read_gguf(const std::string& path) {
  const std::shared_ptr<const MappedFile> mapped = MappedFile::open(path);
  const std::span<const std::byte> bytes = mapped->bytes();
  Cursor cursor(bytes, path);
  if (bytes.size() < 8 || cursor.read<std::uint32_t>() != kMagic) {
    throw InputError(path +
                     ": is no GGUF file: it does not begin with GGUF; name a .gguf file or a Hugging Face directory");
  }
  const auto version = cursor.read<std::uint32_t>();
  if (version != 2 && version != 3) {
    throw InputError(path + ": is GGUF of version " + std::to_string(version) +
                     (version != 0 && version % 0x10000 == 0 ? " (big-endian)" : "") +
                     "; little-endian versions 2 and 3 are read: convert the model again");
  }
  constexpr std::size_t kLeastTableEntry = 8 + 4 + 8 + 4 + 8;  // name, rank, one size, type, offset
  constexpr std::size_t kLeastPair = 8 + 4 + 1;                // key, type, value
  const std::uint64_t tensor_count = cursor.read_count(kLeastTableEntry, "tensors");
  const std::uint64_t pair_count = cursor.read_count(kLeastPair, "metadata");

  GgufFile file;
  file.version = version;
  file.metadata_count = pair_count;
  file.file = mapped;
  const std::size_t metadata_begin = cursor.position();
  ValueReader values(cursor);
  for (std::uint64_t i = 0; i < pair_count; ++i) {
    const std::string key = cursor.read_string();
    if (!file.metadata.emplace(key, values.read(key)).second) cursor.fail("gives '" + key + "' twice");
  }

  file.metadata_bytes = bytes.subspan(metadata_begin, cursor.position() - metadata_begin);

  std::vector<TableEntry> entries;
  std::set<std::string> names;
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    entries.push_back(read_table_entry(cursor, path));
    const std::string& name = entries.back().tensor.name;
    if (!names.insert(name).second) cursor.fail("holds tensor '" + name + "' twice");
  }

  const std::uint64_t alignment = file.alignment = data_alignment(file, cursor);
  const std::uint64_t data_begin = aligned(cursor.position(), alignment);
  const std::uint64_t data_size = bytes.size() > data_begin ? bytes.size() - data_begin : 0;
  std::sort(entries.begin(), entries.end(),
            [](const TableEntry& a, const TableEntry& b) { return a.offset < b.offset; });
  std::uint64_t filled = 0;
  for (TableEntry& entry : entries) {
    const std::string what = "tensor '" + entry.tensor.name + "'";
    if (entry.offset % alignment != 0) cursor.fail(what + " is not aligned");
    if (entry.offset < filled) cursor.fail(what + " overlaps another");
    if (entry.offset > data_size || entry.bytes > data_size - entry.offset) {
      cursor.fail(what + " passes the end of the file (" + std::to_string(bytes.size()) + " bytes)");
    }
    filled = entry.offset + entry.bytes;
    entry.tensor.bytes = bytes.subspan(data_begin + entry.offset, entry.bytes);
    entry.tensor.file = mapped;
    file.tensors.push_back(std::move(entry.tensor));
  }
  return file;
}

void write_gguf(const std::string& path, const GgufFile& source, const std::vector<TensorToWrite>& tensors) {
  std::string head;
  append(head, kMagic);
  append(head, source.version);
  append(head, std::uint64_t{tensors.size()});
  append(head, source.metadata_count);
  head.append(reinterpret_cast<const char*>(source.metadata_bytes.data()), source.metadata_bytes.size());
  std::uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::optional<std::int64_t> count = element_count(tensor.shape);
    if (!count || stored_bytes(tensor.type, static_cast<std::size_t>(*count)) != tensor.bytes.size())
      throw std::invalid_argument("gguf: tensor '" + tensor.name + "' cannot be stored as given");
    append(head, std::uint64_t{tensor.name.size()});
    head += tensor.name;
    append(head, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size)
      append(head, static_cast<std::uint64_t>(*size));
    append(head, ggml_id(tensor.type));
    append(head, offset);
    offset = aligned(offset + tensor.bytes.size(), source.alignment);
  }
  head.resize(aligned(head.size(), source.alignment));

  AtomicFile file(path);
  file.write(head);
  for (const TensorToWrite& tensor : tensors) {
    file.write(tensor.bytes);
    file.write(std::string(aligned(tensor.bytes.size(), source.alignment) - tensor.bytes.size(), '\0'));
  }
  file.commit();
}

}  // namespace proviso::model

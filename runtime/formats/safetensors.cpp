#include "runtime/formats/safetensors.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/json_text.hpp"

namespace proviso::model {

namespace {

using Json = nlohmann::json;

constexpr std::size_t kLengthBytes = 8;  // the header's length, before it
constexpr std::size_t kAlignment = 8;

std::optional<ElementType> element_type(std::string_view dtype) {
  for (const ElementType type : {ElementType::f32, ElementType::f16, ElementType::bf16}) {
    if (dtype == element_type_name(type)) return type;
  }
  return std::nullopt;
}

/// Bytes an element of the types that models carry in buffers, not in weights.
std::optional<std::size_t> buffer_element_bytes(std::string_view dtype) {
  for (const std::string_view one : {"BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"}) {
    if (dtype == one) return 1;
  }
  if (dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "I64" || dtype == "U64" || dtype == "F64") return 8;
  return std::nullopt;
}

/// One entry of the header: {"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}.
struct Entry {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::size_t begin = 0, end = 0;
};

std::int64_t natural_number(const Json& value, const std::string& where) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT64_MAX) {
    throw InputError(where + " holds a " + value.type_name() + " where a natural number belongs");
  }
  return value.get<std::int64_t>();
}

const Json& member(const Json& object, const char* key, Json::value_t type, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->type() != type) throw InputError(where + " has no valid '" + key + "'");
  return *found;
}

Entry read_entry(const std::string& name, const Json& json, const std::string& path) {
  const std::string where = path + ": the entry of tensor '" + name + "'";
  if (!json.is_object()) throw InputError(where + " is not an object");
  Entry entry;
  entry.name = name;
  entry.dtype = member(json, "dtype", Json::value_t::string, where);
  for (const Json& size : member(json, "shape", Json::value_t::array, where)) {
    entry.shape.push_back(natural_number(size, where));
  }
  const Json& offsets = member(json, "data_offsets", Json::value_t::array, where);
  if (offsets.size() != 2) throw InputError(where + " has no two 'data_offsets'");
  entry.begin = static_cast<std::size_t>(natural_number(offsets[0], where));
  entry.end = static_cast<std::size_t>(natural_number(offsets[1], where));

  const std::optional<std::int64_t> count = element_count(entry.shape);
  const std::optional<ElementType> type = element_type(entry.dtype);
  const std::optional<std::size_t> buffer_bytes = buffer_element_bytes(entry.dtype);
  if (!type && !buffer_bytes) throw InputError(where + " has the type '" + entry.dtype + "', which is not known");
  std::size_t bytes = 0;
  if (!count ||
      __builtin_mul_overflow(static_cast<std::size_t>(*count), type ? stored_bytes(*type, 1) : *buffer_bytes, &bytes) ||
      entry.end < entry.begin || entry.end - entry.begin != bytes) {
    throw InputError(where + ": shape " + shape_text(entry.shape) + " of " + entry.dtype +
                     " does not take the bytes from " + std::to_string(entry.begin) + " to " +
                     std::to_string(entry.end));
  }
  return entry;
}

}  // namespace

SafetensorsFile read_safetensors(const std::string& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  std::uint64_t header_length = 0;
  if (bytes.size() >= kLengthBytes) std::memcpy(&header_length, bytes.data(), kLengthBytes);
  if (bytes.size() < kLengthBytes || header_length > bytes.size() - kLengthBytes) {
    throw InputError(path + ": is cut short or no safetensors file (" + std::to_string(bytes.size()) +
                     " bytes); fetch it again");
  }
  const std::string_view header_text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, header_length);
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + header_length);

  SafetensorsFile result;
  std::vector<Entry> entries;
  const Json header = parse_json_object(header_text, path + ": the header", 3);
  for (const auto& [name, json] : header.items()) {
    if (name != "__metadata__") {
      entries.push_back(read_entry(name, json, path));
      continue;
    }
    if (json.is_null()) continue;
    if (!json.is_object()) throw InputError(path + ": '__metadata__' is not an object");
    for (const auto& [key, value] : json.items()) {
      if (!value.is_string()) throw InputError(path + ": '__metadata__' holds more than text at '" + key + "'");
      result.metadata[key] = value;
    }
  }

  // The data of the tensors lie one after the other and fill the file: no overlap, no hidden bytes.
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::size_t filled = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != filled || entry.end > data.size()) {
      throw InputError(path + ": tensor '" + entry.name + "' lies at bytes " + std::to_string(entry.begin) + " to " +
                       std::to_string(entry.end) +
                       ": it overlaps another, leaves a gap or passes the end of the file (" +
                       std::to_string(data.size()) + " bytes of data); fetch the file again");
    }
    filled = entry.end;
    if (const auto type = element_type(entry.dtype)) {
      result.tensors.push_back(
          {entry.name, *type, entry.shape, data.subspan(entry.begin, entry.end - entry.begin), file});
    } else {
      result.unread[entry.name] = entry.dtype;
    }
  }
  if (filled != data.size()) {
    throw InputError(path + ": " + std::to_string(data.size() - filled) +
                     " bytes at the end belong to no tensor; fetch the file again");
  }
  return result;
}

namespace {

/// Everything before the tensors' bytes: the length of the header, and the header.
std::string opening(const std::vector<TensorToWrite>& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string> names{"__metadata__"};
  std::size_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::optional<std::int64_t> count = element_count(tensor.shape);
    if (!element_type(element_type_name(tensor.type)) || !count ||
        stored_bytes(tensor.type, static_cast<std::size_t>(*count)) != tensor.bytes.size() ||
        !names.insert(tensor.name).second) {
      throw std::invalid_argument("safetensors: tensor '" + tensor.name + "' cannot be stored as given");
    }
    header.push_back({tensor.name,
                      {{"dtype", element_type_name(tensor.type)},
                       {"shape", tensor.shape},
                       {"data_offsets", {offset, offset + tensor.bytes.size()}}}});
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace

std::string safetensors_bytes(const std::vector<TensorToWrite>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::string bytes = opening(tensors, metadata);
  for (const TensorToWrite& tensor : tensors) {
    bytes.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }
  return bytes;
}

void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string head = opening(tensors, metadata);
  AtomicFile file(path);
  file.write(head);
  for (const TensorToWrite& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace proviso::model

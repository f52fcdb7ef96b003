#include "editing/originals.hpp"

#include <algorithm>
#include <span>

#include "editing/ledger_file.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/gguf.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/formats/sha256.hpp"

namespace proviso::editing {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

std::vector<model::StoredTensor> stored_tensors(const fs::path& path, bool gguf) {
  return gguf ? model::read_gguf(path.string()).tensors : model::read_safetensors(path.string()).tensors;
}

}  // namespace

TensorsByName tensors_of(const fs::path& path, bool gguf) {
  TensorsByName tensors;
  for (auto& tensor : stored_tensors(path, gguf)) tensors.emplace(tensor.name, std::move(tensor));
  return tensors;
}

Json save_weight_file(const fs::path& path, bool gguf, const CanonicalNames& names, const TensorsByName& edited,
                      const fs::path& saved_path, Json& tensors) {
  const auto file = model::MappedFile::open(path.string());
  const auto whole = file->bytes();
  auto stored = stored_tensors(path, gguf);
  // Offsets into this mapping: the reader has made its own.
  const auto offset = [](const model::StoredTensor& tensor) {
    return static_cast<std::size_t>(tensor.bytes.data() - tensor.file->bytes().data());
  };
  std::ranges::sort(stored, {}, offset);

  model::AtomicFile saved(saved_path.string());
  Json segments = Json::array();
  std::size_t written = 0;
  const auto save_until = [&](std::size_t end) {
    if (end == written) return;
    saved.write(whole.subspan(written, end - written));
    segments.push_back(end - written);
    written = end;
  };
  for (const auto& tensor : stored) {
    const auto canonical = names.find(tensor.name);
    const auto& name = canonical == names.end() ? tensor.name : canonical->second;
    const auto now = edited.find(name);
    const bool unchanged = now != edited.end() && std::ranges::equal(now->second.bytes, tensor.bytes);
    tensors[name]["dtype_before"] = model::element_type_name(tensor.type);
    tensors[name]["sha256_before"] =
        unchanged ? tensors[name].at("sha256_after") : Json(model::sha256_hex(tensor.bytes));
    if (!unchanged) continue;
    save_until(offset(tensor));
    segments.push_back(name);
    written = offset(tensor) + tensor.bytes.size();
  }
  save_until(whole.size());
  saved.commit();
  return {{"name", path.filename().string()}, {"sha256", file_sha256(path)}, {"segments", segments}};
}

void restore_weight_file(const Json& file, const fs::path& saved_path, const TensorsByName& edited,
                         const fs::path& to) {
  const auto saved = model::MappedFile::open(saved_path.string());
  std::size_t read = 0;
  model::AtomicFile out(to.string());
  for (const auto& segment : file.at("segments")) {
    if (segment.is_string()) {
      out.write(edited.at(segment.get<std::string>()).bytes);
      continue;
    }
    const auto length = segment.get<std::size_t>();
    if (length > saved->bytes().size() - read) refuse_altered(saved_path);
    out.write(saved->bytes().subspan(read, length));
    read += length;
  }
  out.commit();
}

}  // namespace proviso::editing

#include "runtime/model/tensor_cache.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <system_error>

#include "runtime/formats/safetensors.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::model {

namespace fs = std::filesystem;

namespace {

constexpr char kVersion[] = "1";
constexpr std::size_t kHashCharacters = 16;  // of a hash, in a file's name

/// Of what says how a Hugging Face model's weights and texts are used; a GGUF file holds all of it.
std::string hash_of_files_beside(const ModelCard& card, const std::string& directory) {
  std::vector<std::string> files;
  if (!card.config_file.empty()) {
    files.push_back(card.config_file);
    const auto tokenizer = fs::path(card.config_file).replace_filename("tokenizer.json").string();
    if (fs::exists(tokenizer)) files.push_back(tokenizer);
  }
  return sha256_of_files(files, directory);
}

}  // namespace

KeptTensor read_kept_tensor(const std::string& path, const std::string& name) {
  auto file = read_safetensors(path);
  const auto stored = std::ranges::find(file.tensors, name, &StoredTensor::name);
  if (stored == file.tensors.end() || stored->type != ElementType::f32)
    throw InputError(path + ": holds no float32 tensor `" + name + "`");
  KeptTensor kept{stored_values(*stored), std::move(file.metadata)};
  if (!kept.value.isfinite().all().item<bool>()) throw InputError(path + ": holds values that are no numbers");
  return kept;
}

TensorCache::TensorCache(const Transformer& transformer, const std::string& directory, std::string kind,
                         const std::map<std::string, std::string>& of)
    : kind_(std::move(kind)) {
  if (directory.empty()) return;
  identity_ = of;
  identity_["model"] = transformer.card().sha256(directory);
  identity_["beside"] = hash_of_files_beside(transformer.card(), directory);
  identity_["dtype"] = at::toString(transformer.options().dtype);
  identity_["device"] = transformer.options().device.str();
  identity_["threads"] = std::to_string(at::get_num_threads());
  identity_["version"] = kVersion;
  std::string file = identity_["model"].substr(0, kHashCharacters) + "-" + identity_["dtype"] + "-" +
                     identity_["device"] + "-" + identity_["threads"];
  for (const auto& [key, value] : of) file += "-" + value.substr(0, kHashCharacters);
  path_ = (fs::path(directory) / kind_ / (file + ".safetensors")).string();
}

std::optional<KeptTensor> TensorCache::read() const try {
  if (path_.empty() || !fs::exists(path_)) return std::nullopt;
  auto kept = read_kept_tensor(path_, kind_);
  for (const auto& [key, value] : identity_) {
    if (kept.metadata.at(key) != value) return std::nullopt;
  }
  return kept;
} catch (const std::exception&) {
  return std::nullopt;
}

void TensorCache::write(const at::Tensor& value, std::map<std::string, std::string> metadata) const {
  if (path_.empty()) return;
  metadata.insert(identity_.begin(), identity_.end());
  const auto stored = value.to(at::kCPU, at::kFloat).contiguous();
  std::error_code ignored;
  fs::create_directories(fs::path(path_).parent_path(), ignored);
  try {
    write_safetensors(path_,
                      {{.name = kind_,
                        .type = ElementType::f32,
                        .shape = stored.sizes().vec(),
                        .bytes = {static_cast<const std::byte*>(stored.const_data_ptr()), stored.nbytes()}}},
                      metadata);
  } catch (const std::runtime_error&) {
  }
}

}  // namespace proviso::model

#pragma once

// The inside of a ledger: what an edited model's file no longer holds of the file that it was made from.

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::editing {

using TensorsByName = std::map<std::string, model::StoredTensor>;
/// Of a GGUF file, or of safetensors; by the names in the file.
TensorsByName tensors_of(const std::filesystem::path& path, bool gguf);

/// Names of the edited model's tensors by those in the source's file; a name that is missing is the same in both.
using CanonicalNames = std::map<std::string, std::string>;

/// Keeps in `saved_path` what `edited` does not hold of a weight file. The result's `segments` list the whole file in
/// order, each the name of a tensor of the edited model that has the same bytes, or the number of bytes that come next
/// in `saved_path`. `tensors` learns each one's hash and type before.
nlohmann::ordered_json save_weight_file(const std::filesystem::path& path, bool gguf, const CanonicalNames& names,
                                        const TensorsByName& edited, const std::filesystem::path& saved_path,
                                        nlohmann::ordered_json& tensors);

/// The file that was saved so. Throws `InputError` where `saved_path` is too short for it.
void restore_weight_file(const nlohmann::ordered_json& file, const std::filesystem::path& saved_path,
                         const TensorsByName& edited, const std::filesystem::path& to);

}  // namespace proviso::editing

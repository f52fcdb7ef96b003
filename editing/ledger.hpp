#pragma once

#include <string>
#include <utility>
#include <vector>

#include "editing/certificate.hpp"
#include "editing/weight_delta.hpp"
#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::editing {

/// What `apply --hooks keep` writes beside an edited model: the rules that stay hooks, and their directions.
inline constexpr char kHookRules[] = "hooks.proviso";
inline constexpr char kHookVectors[] = "hooks.safetensors";

/// One edit, or one rule that became weights, as the ledger keeps it.
struct LedgerEntry {
  std::string name;
  std::string rule_file;    ///< as named on the command line
  std::string rule_sha256;  ///< of that file
  std::vector<WeightDelta> deltas;
  std::vector<Certificate> certificates;
  NamedNumbers costs;    ///< of all together, on text that no edit sees
  std::string remark{};  ///< what has become of it since: "measured together with `x`, which was dropped"
};

/// Writes the model with `entries` applied in order, as a folder that appears whole or not at all:
///
///   directory/model.safetensors, config.json, tokenizer.json, …   the edited model
///   directory/proviso/ledger.json                                 what was done, with hashes of all tensors and files
///   directory/proviso/edit-1.safetensors, …                       each entry's change alone, as its factors
///   directory/proviso/originals/…                                 what the edited model no longer holds of its source
///
/// `transformer` must be as loaded, and is left so. `extra_files` (name, bytes) go beside the model. Where
/// `expected_sha256` is given and model.safetensors comes to other bytes, that is an `InputError`.
void write_edited_model(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<LedgerEntry>& entries, model::ElementType type, const std::string& directory,
                        const std::vector<std::pair<std::string, std::string>>& extra_files = {},
                        const std::string& expected_sha256 = "");

/// Writes the model that `directory` was made from to `destination`: the source's files, byte for byte, or, where
/// it was a GGUF file, its float32 weights as a Hugging Face folder. Throws `InputError` naming the weights or the
/// record that has changed since; what has changed beside them (config.json) is restored as well, and returned by name.
std::vector<std::string> revert_edited_model(const std::string& directory, const std::string& destination);

}  // namespace proviso::editing

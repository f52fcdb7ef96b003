#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "editing/ledger_entry.hpp"
#include "editing/written_form.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::editing {

/// What `apply --hooks keep` writes beside an edited model: the rules that stay hooks, and their directions.
inline constexpr char kHookRules[] = "hooks.proviso";
inline constexpr char kHookVectors[] = "hooks.safetensors";

/// The model that edits were made on, as their ledger names it.
struct EditedSource {
  std::string name, format;  ///< "gguf" or "hugging_face"
  std::string sha256;        ///< over its weight files
};

/// Where an edited model goes, and as what.
struct EditedOutput {
  std::string path;  ///< a folder, or a GGUF file
  WrittenForm form{};
  std::vector<std::pair<std::string, std::string>> beside{};  ///< files that go with it: name, bytes
  std::string expected_sha256{};         ///< where the model's file comes to other bytes, that is an `InputError`
  std::optional<EditedSource> source{};  ///< where `transformer` is a copy of the source, restored
  KeptKeys inherited_keys{};             ///< that alphaedit's edits of the source's own ledger asked to spare
};

/// Writes the model with `entries` applied in order. It appears whole or not at all, and never over what is there:
///
///   path/model.safetensors, config.json, tokenizer.json, …   the edited model
///   path/proviso/ledger.json                                 what was done, with hashes of all tensors and files
///   path/proviso/edit-1.safetensors, …                       each entry's change alone, as its factors
///   path/proviso/originals/…                                 what the edited model no longer holds of its source
///
/// As an adapter: adapter_config.json and adapter_model.safetensors in place of the model, and nothing to be saved.
/// As a GGUF file: the file, and the records in "path.proviso"; records without their file, which a kill between the
/// two can leave, say so and give way to the next ones. `transformer` must be as loaded, and is left so.
void write_edited_model(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<LedgerEntry>& entries, const EditedOutput& output);

/// Throws what writing there would, before the work whose result is written.
void require_new_output(const std::string& path, WrittenForm::Kind kind);

/// Writes the model that the one at `path` was made from to `destination`: the source's files, byte for byte, or, where
/// it was a GGUF file and is a folder now, its weights as a Hugging Face folder. Throws `InputError` naming the weights
/// or the record that has changed since, and for an adapter, which has changed no model; what has changed beside them
/// (config.json) is restored as well, and returned by name.
std::vector<std::string> revert_edited_model(const std::string& path, const std::string& destination);

}  // namespace proviso::editing

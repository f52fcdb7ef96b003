#pragma once

#include <string>
#include <vector>

#include "editing/ledger.hpp"

namespace proviso::editing {

/// What a folder that `write_edited_model` wrote says of itself.
struct EditedModel {
  std::string source_name, source_format;  ///< "gguf" or "hugging_face"
  std::string source_sha256;               ///< over its weight files
  std::string model_sha256;                ///< of model.safetensors
  std::vector<LedgerEntry> entries;
  std::vector<std::pair<std::string, std::string>> beside;  ///< `extra_files`
};

/// Reads the ledger and every edit's factors. Throws `InputError` naming the file that has changed since.
EditedModel read_edited_model(const std::string& directory);

/// As `read_edited_model`, and every tensor of the model and every saved original against the ledger's hashes.
EditedModel verify_edited_model(const std::string& directory);

/// Throws `InputError` unless the model is the one that the edits were made on, byte for byte.
void require_source(const EditedModel& edited, const model::ModelCard& card, const std::string& directory);

/// Makes the edits of `directory` again on another copy of the model, as `transformer` is loaded: the same bytes, and
/// the same ledger, or an `InputError` and nothing.
void replay_edits(const std::string& directory, model::Transformer& transformer, const model::Tokenizer& tokenizer,
                  const std::string& destination);

/// The model without the edit `name`: rebuilt from the saved originals by the other edits' factors, in their order.
/// Throws `InputError` where there is no such edit, or no other.
void drop_edit(const std::string& directory, const std::string& name, const std::string& destination);

/// All edits as one entry, "a, b", of the same model bytes: together from now on.
void squash_edits(const std::string& directory, const std::string& destination);

}  // namespace proviso::editing

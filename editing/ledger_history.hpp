#pragma once

#include <string>
#include <vector>

#include "editing/ledger.hpp"

namespace proviso::editing {

/// A tensor whose values the file of an edited model does not hold to the bit, as its ledger tells.
struct RoundingRecord {
  std::string tensor, type;  ///< Hugging Face's name; "Q4_1"
  double relative_error = 0, change_kept = 0;
};

/// What a model that `write_edited_model` wrote says of itself.
struct EditedModel {
  WrittenForm form;
  EditedSource source;
  std::string model_sha256;  ///< of model.safetensors, adapter_model.safetensors or the GGUF file
  std::vector<LedgerEntry> entries;
  std::vector<RoundingRecord> rounded;
  std::vector<std::pair<std::string, std::string>> beside;  ///< files that go with it: name, bytes
  KeptKeys inherited_keys;                                  ///< of the source's own ledger
};

/// What alphaedit's edits that made the model at `path` ask later ones to spare, those of its source's ledger included;
/// nothing where it has no ledger. `path` is a folder, a GGUF file or a safetensors file. Throws as
/// `read_edited_model`.
KeptKeys kept_keys(const std::string& path);

/// Reads the ledger and every edit's factors. Throws `InputError` naming the file that has changed since.
EditedModel read_edited_model(const std::string& path);

/// As `read_edited_model`, and every tensor of the model (or adapter) and every saved original against the ledger's
/// hashes.
EditedModel verify_edited_model(const std::string& path);

/// Throws `InputError` unless the model is the one that the edits were made on, byte for byte.
void require_source(const EditedModel& edited, const model::ModelCard& card, const std::string& path);

/// Makes the edits of `path` again on another copy of the model, as `transformer` is loaded: the same bytes, and
/// the same ledger, in the same form, or an `InputError` and nothing.
void replay_edits(const std::string& path, model::Transformer& transformer, const model::Tokenizer& tokenizer,
                  const std::string& destination);

/// The model without the edit `name`: rebuilt from the saved originals by the other edits' factors, in their order.
/// Throws `InputError` where there is no such edit, or no other, and for an adapter, which saves no originals.
void drop_edit(const std::string& path, const std::string& name, const std::string& destination);

/// All edits as one entry, "a, b", of the same model bytes: together from now on.
void squash_edits(const std::string& path, const std::string& destination);

}  // namespace proviso::editing

#pragma once

// The inside of a ledger: what writing, reverting and replaying know of its files.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "editing/written_form.hpp"

namespace proviso::editing {

inline constexpr int kLedgerVersion = 4;
inline constexpr char kInheritedKeys[] = "inherited-keys.safetensors";
/// Stands among the records of a GGUF file until that is in place.
inline constexpr char kUnfinished[] = "unfinished";
inline constexpr char kFolder[] = "proviso";
inline constexpr char kLedger[] = "ledger.json";
inline constexpr char kOriginals[] = "originals";
inline constexpr char kModelFile[] = "model.safetensors";

/// Beside "out.gguf" its records are in "out.gguf.proviso".
std::filesystem::path records_beside(const std::filesystem::path& gguf);

/// What `apply` wrote, found again: its ledger, and where its files lie.
struct EditedPlace {
  std::filesystem::path folder;   ///< to which names of other files are relative
  std::filesystem::path records;  ///< the ledger's own
  std::filesystem::path model;    ///< model.safetensors, adapter_model.safetensors, or the GGUF file
  WrittenForm form;
  nlohmann::ordered_json ledger;

  std::filesystem::path ledger_path() const { return records / kLedger; }
  bool gguf() const { return form.kind == WrittenForm::Kind::gguf; }
};
/// `path` is a folder or a GGUF file. Throws `InputError` where there is no ledger, it was altered, or is of another
/// version, and where the model's file is not the one that it tells of.
EditedPlace open_edited(const std::string& path);

std::string file_sha256(const std::filesystem::path& path);

/// Over the ledger without its seal: shows an altered ledger, and keeps nobody from making another one.
std::string seal_of(nlohmann::ordered_json ledger);

[[noreturn]] void refuse_altered(const std::filesystem::path& path);
/// Throws `InputError` naming a file that is missing, or holds other bytes.
void require_sha256(const std::filesystem::path& path, const std::string& expected);

/// A name from the ledger as a file of `folder`, which it cannot leave.
std::filesystem::path file_in(const std::filesystem::path& folder, const std::string& name,
                              const std::filesystem::path& ledger);

}  // namespace proviso::editing

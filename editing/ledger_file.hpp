#pragma once

// The inside of a ledger: what writing, reverting and replaying know of its files.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace proviso::editing {

inline constexpr int kLedgerVersion = 2;
inline constexpr char kFolder[] = "proviso";
inline constexpr char kLedger[] = "ledger.json";
inline constexpr char kOriginals[] = "originals";
inline constexpr char kModelFile[] = "model.safetensors";
/// What follows a factor's name: the float32 tensors whose sum it is.
inline constexpr const char* kFactorParts[] = {"", ".rest", ".least"};

std::string file_sha256(const std::filesystem::path& path);

/// Over the ledger without its seal: shows an altered ledger, and keeps nobody from making another one.
std::string seal_of(nlohmann::ordered_json ledger);

[[noreturn]] void refuse_altered(const std::filesystem::path& path);
/// Throws `InputError` naming a file that is missing, or holds other bytes.
void require_sha256(const std::filesystem::path& path, const std::string& expected);

/// Throws `InputError` where there is none, it was altered, or is of another version.
nlohmann::ordered_json read_ledger(const std::filesystem::path& path);

/// A name from the ledger as a file of `folder`, which it cannot leave.
std::filesystem::path file_in(const std::filesystem::path& folder, const std::string& name,
                              const std::filesystem::path& ledger);

}  // namespace proviso::editing

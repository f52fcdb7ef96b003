#pragma once

// The inside of a ledger: its entries as JSON and as files of factors, there and back.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "editing/ledger_entry.hpp"

namespace proviso::editing {

/// NaN and infinities are null in JSON: NaN, either way.
double number_in(const nlohmann::ordered_json& json);

/// Writes each entry's factors into the folder `records` (edit-1.safetensors, …) and gives the ledger's "edits".
nlohmann::ordered_json write_entries(const std::vector<LedgerEntry>& entries, const std::filesystem::path& records);

/// The way back, to the bit. Throws `InputError` naming the file of factors that is missing or has changed.
std::vector<LedgerEntry> read_entries(const nlohmann::ordered_json& ledger, const std::filesystem::path& records);

/// Keys as a file of their own, to the bit.
void write_kept_keys(const std::filesystem::path& path, const KeptKeys& keys);
KeptKeys read_kept_keys(const std::filesystem::path& path);
/// `more` after those that are there, layer by layer.
void join_keys(const KeptKeys& more, KeptKeys& into);

}  // namespace proviso::editing

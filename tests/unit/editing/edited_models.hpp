#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "editing/fold.hpp"
#include "editing/ledger.hpp"
#include "tests/support/random_model.hpp"

namespace proviso::test {

inline std::map<std::string, std::string> files_in(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.is_regular_file()) files[entry.path().filename().string()] = read_bytes(entry.path().string());
  return files;
}

/// A weight of rank one, a bias where the family may lack it, and the embedding.
inline std::vector<editing::LedgerEntry> entries_for(const model::Transformer& transformer) {
  const auto D = random_tensor({1, 16}).div(random_tensor({1, 16}).norm());
  auto request = editing::removal(D, 1);
  request.targets.fill_(0.5);
  std::vector<editing::LedgerEntry> entries;
  for (const dsl::Site site : {dsl::Site{dsl::SiteKind::mlp_out, 1}, dsl::Site{dsl::SiteKind::embed}}) {
    editing::LedgerEntry entry{"clear_" + std::string(dsl::site_name(site.kind)), "rules.proviso", "abc", {}, {}, {}};
    entry.deltas = std::get<std::vector<editing::WeightDelta>>(editing::fold(request, transformer, site));
    editing::Certificate certificate;
    certificate.method = "project";
    for (const auto& delta : entry.deltas) certificate.changes.push_back(editing::describe_change(transformer, delta));
    entry.certificates = {std::move(certificate)};
    entries.push_back(std::move(entry));
  }
  return entries;
}

inline void flip_a_byte(const std::string& path, std::size_t from_end) {
  auto bytes = read_bytes(path);
  bytes[bytes.size() - from_end] ^= 1;
  write_bytes(path, bytes);
}

/// What an `InputError` says; "" where there is none.
inline std::string refusal_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const model::InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace proviso::test

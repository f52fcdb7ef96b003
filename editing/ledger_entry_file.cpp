#include "editing/ledger_entry_file.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <string_view>

#include "editing/float_tensors.hpp"
#include "editing/ledger_file.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::editing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What follows a factor's name: the float32 tensors whose sum it is.
constexpr const char* kFactorParts[] = {"", ".rest", ".least"};
constexpr std::string_view kLeft = ".left", kRight = ".right";

// ---- writing -----------------------------------------------------------------------------------

/// A float64 tensor as float32 ones whose sum it is, to the bit: safetensors files here hold no float64.
void add_parts(std::vector<std::pair<std::string, at::Tensor>>& tensors, const std::string& name,
               const at::Tensor& factor) {
  auto rest = factor.cpu().to(at::kDouble);
  for (const char* part : kFactorParts) {
    tensors.emplace_back(name + part, rest.to(at::kFloat).contiguous());
    rest = rest - tensors.back().second.to(at::kDouble);
  }
}

void write_factors(const std::string& path, const LedgerEntry& entry) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  // Numbered in the order in which they apply: several may change one tensor. The identity of a change of full rank is
  // left out.
  for (std::size_t i = 0; i < entry.deltas.size(); ++i) {
    const auto& delta = entry.deltas[i];
    const auto name = std::to_string(i) + "." + delta.tensor;
    if (!is_identity(delta.left)) add_parts(tensors, name + std::string(kLeft), delta.left);
    if (is_identity(delta.left) || !is_identity(delta.right))
      add_parts(tensors, name + std::string(kRight), delta.right);
  }
  write_float_tensors(
      path, tensors,
      {{"format", "pt"},
       {"change", "number by number: W' = W + left right, each the sum of its parts; one that is missing is I"}});
}

Json numbers_json(const NamedNumbers& numbers) {
  Json json = Json::object();
  for (const auto& [name, value] : numbers) json[name] = value;
  return json;
}

Json entry_json(const LedgerEntry& entry, const std::string& factors) {
  Json certificates = Json::array(), expectations = Json::array();
  for (const auto& certificate : entry.certificates) {
    Json changes = Json::array(), parameters = Json::object();
    for (const auto& change : certificate.changes)
      changes.push_back({{"tensor", change.tensor},
                         {"sha256_before", change.sha256_before},
                         {"sha256_after", change.sha256_after},
                         {"shape", change.shape},
                         {"rank", change.rank},
                         {"norm", change.norm},
                         {"relative_norm", change.relative_norm}});
    for (const auto& [name, value] : certificate.parameters) parameters[name] = value;
    certificates.push_back({{"method", certificate.method},
                            {"parameters", parameters},
                            {"changes", changes},
                            {"algebra", numbers_json(certificate.algebra)},
                            {"predicted", numbers_json(certificate.predicted)},
                            {"measured", numbers_json(certificate.measured)}});
  }
  for (const auto& each : entry.expectations)
    expectations.push_back({{"text", each.text},
                            {"status", each.status},
                            {"value", each.value},
                            {"final_status", each.final_status},
                            {"final_value", each.final_value}});
  Json json = {{"name", entry.name},
               {"rule_file", entry.rule_file},
               {"rule_sha256", entry.rule_sha256},
               {"factors", factors},
               {"expectations", expectations},
               {"certificates", certificates},
               {"costs", numbers_json(entry.costs)}};
  if (!entry.remark.empty()) json["remark"] = entry.remark;
  return json;
}

// ---- reading -----------------------------------------------------------------------------------

NamedNumbers numbers(const Json& json) {
  NamedNumbers named;
  for (const auto& [name, value] : json.items()) named.emplace_back(name, number_in(value));
  return named;
}

Certificate certificate(const Json& json) {
  Certificate read;
  read.method = json.at("method");
  for (const auto& [name, value] : json.at("parameters").items()) read.parameters.emplace_back(name, value);
  for (const auto& change : json.at("changes"))
    read.changes.push_back({change.at("tensor"), change.at("sha256_before"), change.at("sha256_after"),
                            change.at("shape").get<std::vector<std::int64_t>>(), change.at("rank"), change.at("norm"),
                            change.at("relative_norm")});
  read.algebra = numbers(json.at("algebra"));
  read.predicted = numbers(json.at("predicted"));
  read.measured = numbers(json.at("measured"));
  return read;
}

/// The tensors of a file whose parts are summed, by their names.
std::map<std::string, at::Tensor> read_summed(const fs::path& path) {
  std::map<std::string, at::Tensor> parts;
  for (const auto& stored : model::read_safetensors(path.string()).tensors)
    parts[stored.name] = model::stored_values(stored).to(at::kDouble);
  std::map<std::string, at::Tensor> summed;
  for (const auto& [name, largest] : parts) {
    if (name.ends_with(kFactorParts[1]) || name.ends_with(kFactorParts[2])) continue;
    // The least part first: each sum is exact.
    auto sum = parts.at(name + kFactorParts[2]) + parts.at(name + kFactorParts[1]);
    summed[name] = sum + largest;
  }
  return summed;
}

/// The changes of a factor file, in their order: "3.model.layers.5.mlp.down_proj.weight.left" and its other parts.
std::vector<WeightDelta> read_factors(const fs::path& path) {
  const auto factors = read_summed(path);
  std::map<std::size_t, std::string> tensors;
  for (const auto& [name, factor] : factors) {
    const auto dot = name.find('.');
    const auto side = name.ends_with(kLeft) ? kLeft : kRight;
    tensors[std::stoul(name.substr(0, dot))] = name.substr(dot + 1, name.size() - dot - 1 - side.size());
  }
  std::vector<WeightDelta> deltas;
  for (const auto& [number, tensor] : tensors) {
    const auto name = std::to_string(number) + "." + tensor;
    const auto left = factors.find(name + std::string(kLeft)), right = factors.find(name + std::string(kRight));
    const auto identity = [](std::int64_t size) { return at::eye(size, at::kDouble); };
    deltas.push_back({tensor, left == factors.end() ? identity(right->second.size(0)) : left->second,
                      right == factors.end() ? identity(left->second.size(1)) : right->second});
  }
  return deltas;
}

}  // namespace

double number_in(const Json& json) { return json.is_number() ? json.get<double>() : std::nan(""); }

void write_kept_keys(const fs::path& path, const KeptKeys& keys) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [layer, K] : keys) add_parts(tensors, std::to_string(layer), K);
  write_float_tensors(path.string(), tensors,
                      {{"format", "pt"}, {"keys", "by layer, [d_in, facts], each the sum of its parts"}});
}

KeptKeys read_kept_keys(const fs::path& path) {
  KeptKeys keys;
  for (auto& [layer, K] : read_summed(path)) keys.emplace(std::stoll(layer), K);
  return keys;
}

void join_keys(const KeptKeys& more, KeptKeys& into) {
  for (const auto& [layer, K] : more) {
    const auto held = into.find(layer);
    into[layer] = held == into.end() ? K : at::cat({held->second, K.to(held->second.device())}, 1);
  }
}

Json write_entries(const std::vector<LedgerEntry>& entries, const fs::path& records) {
  Json edits = Json::array();
  for (const auto& entry : entries) {
    const auto factors = "edit-" + std::to_string(edits.size() + 1) + ".safetensors";
    write_factors((records / factors).string(), entry);
    edits.push_back(entry_json(entry, factors));
    edits.back()["factors_sha256"] = file_sha256(records / factors);
    if (entry.kept_keys.empty()) continue;
    const auto keys = "edit-" + std::to_string(edits.size()) + ".keys.safetensors";
    write_kept_keys(records / keys, entry.kept_keys);
    edits.back()["keys"] = keys;
    edits.back()["keys_sha256"] = file_sha256(records / keys);
  }
  return edits;
}

std::vector<LedgerEntry> read_entries(const Json& ledger, const fs::path& records) {
  std::vector<LedgerEntry> entries;
  for (const auto& json : ledger.at("edits")) {
    const auto factors = file_in(records, json.at("factors"), records / kLedger);
    require_sha256(factors, json.at("factors_sha256"));
    LedgerEntry entry{json.at("name"), json.at("rule_file"), json.at("rule_sha256"), read_factors(factors), {}, {}};
    entry.remark = json.value("remark", "");
    for (const auto& each : json.at("expectations"))
      entry.expectations.push_back({each.at("text"), each.at("status"), number_in(each.at("value")),
                                    each.at("final_status"), number_in(each.at("final_value"))});
    for (const auto& each : json.at("certificates")) entry.certificates.push_back(certificate(each));
    entry.costs = numbers(json.at("costs"));
    if (json.contains("keys")) {
      const auto keys = file_in(records, json.at("keys"), records / kLedger);
      require_sha256(keys, json.at("keys_sha256"));
      entry.kept_keys = read_kept_keys(keys);
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace proviso::editing

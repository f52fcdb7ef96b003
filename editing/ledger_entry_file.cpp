#include "editing/ledger_entry_file.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "editing/float_tensors.hpp"
#include "editing/ledger_file.hpp"
#include "runtime/formats/safetensors.hpp"

namespace proviso::editing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What follows a factor's name: the float32 tensors whose sum it is.
constexpr const char* kFactorParts[] = {"", ".rest", ".least"};

// ---- writing -----------------------------------------------------------------------------------

/// A float64 tensor as float32 ones whose sum it is, to the bit: safetensors files here hold no float64.
void add_factor(std::vector<std::pair<std::string, at::Tensor>>& tensors, const std::string& name,
                const at::Tensor& factor) {
  auto rest = factor.cpu().to(at::kDouble);
  for (const char* part : kFactorParts) {
    tensors.emplace_back(name + part, rest.to(at::kFloat).contiguous());
    rest = rest - tensors.back().second.to(at::kDouble);
  }
}

void write_factors(const std::string& path, const LedgerEntry& entry) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  // Numbered in the order in which they apply: several may change one tensor.
  for (std::size_t i = 0; i < entry.deltas.size(); ++i) {
    const auto& delta = entry.deltas[i];
    const auto name = std::to_string(i) + "." + delta.tensor;
    add_factor(tensors, name + ".left", delta.left);
    add_factor(tensors, name + ".right", delta.right);
  }
  write_float_tensors(
      path, tensors,
      {{"format", "pt"}, {"change", "number by number: W' = W + left right, each the sum of its parts"}});
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

/// The changes of a factor file, in their order: "3.model.layers.5.mlp.down_proj.weight.left" and its other parts.
std::vector<WeightDelta> read_factors(const fs::path& path) {
  std::map<std::string, at::Tensor> parts;
  std::map<std::size_t, std::string> tensors;
  for (const auto& stored : model::read_safetensors(path.string()).tensors) {
    auto values = at::empty(stored.shape, at::kFloat);
    model::dequantize(stored, {values.mutable_data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    parts[stored.name] = values.to(at::kDouble);
    if (!stored.name.ends_with(".left")) continue;
    const auto dot = stored.name.find('.');
    tensors[std::stoul(stored.name.substr(0, dot))] = stored.name.substr(dot + 1, stored.name.size() - dot - 6);
  }
  std::vector<WeightDelta> deltas;
  for (const auto& [number, tensor] : tensors) {
    const auto factor = [&](const char* side) {
      const auto name = std::to_string(number) + "." + tensor + side;
      // The least part first: each sum is exact.
      auto sum = parts.at(name + kFactorParts[2]) + parts.at(name + kFactorParts[1]);
      return sum + parts.at(name);
    };
    deltas.push_back({tensor, factor(".left"), factor(".right")});
  }
  return deltas;
}

}  // namespace

double number_in(const Json& json) { return json.is_number() ? json.get<double>() : std::nan(""); }

Json write_entries(const std::vector<LedgerEntry>& entries, const fs::path& records) {
  Json edits = Json::array();
  for (const auto& entry : entries) {
    const auto factors = "edit-" + std::to_string(edits.size() + 1) + ".safetensors";
    write_factors((records / factors).string(), entry);
    edits.push_back(entry_json(entry, factors));
    edits.back()["factors_sha256"] = file_sha256(records / factors);
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
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace proviso::editing

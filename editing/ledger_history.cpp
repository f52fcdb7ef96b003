#include "editing/ledger_history.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>

#include "editing/ledger_file.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/model/model_writer.hpp"

namespace proviso::editing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using model::InputError;

fs::path ledger_of(const fs::path& folder) { return folder / kFolder / kLedger; }

NamedNumbers numbers(const Json& json) {
  NamedNumbers named;
  for (const auto& [name, value] : json.items())
    named.emplace_back(name, value.is_number() ? value.get<double>() : std::nan(""));
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

EditedModel read(const fs::path& folder, const Json& ledger) {
  EditedModel edited;
  const auto& source = ledger.at("source");
  edited.source_name = source.at("name");
  edited.source_format = source.at("format");
  edited.source_sha256 = source.at("sha256");
  edited.model_sha256 = ledger.at("model_sha256");
  require_sha256(folder / kModelFile, edited.model_sha256);
  for (const auto& entry : ledger.at("edits")) {
    const auto factors = file_in(folder / kFolder, entry.at("factors"), ledger_of(folder));
    require_sha256(factors, entry.at("factors_sha256"));
    LedgerEntry made{
        entry.at("name"),         entry.at("rule_file"), entry.at("rule_sha256"), read_factors(factors), {}, {},
        entry.value("remark", "")};
    for (const auto& each : entry.at("certificates")) made.certificates.push_back(certificate(each));
    made.costs = numbers(entry.at("costs"));
    edited.entries.push_back(std::move(made));
  }
  for (const auto& file : ledger.at("beside")) {
    const auto path = file_in(folder, file.at("name"), ledger_of(folder));
    require_sha256(path, file.at("sha256"));
    edited.beside.emplace_back(file.at("name"), model::MappedFile::open(path.string())->text());
  }
  return edited;
}

/// Rebuilds the model from what `directory` saved of its source, with other entries.
void rebuild(const std::string& directory, const std::string& destination, const std::string& expected_sha256,
             const std::function<void(EditedModel&)>& change) {
  auto edited = read_edited_model(directory);
  change(edited);
  model::write_directory_atomically(destination, [&](const std::string& temporary) {
    // Folders that no file of a model is called.
    const fs::path outer(temporary), inner = outer / ".edited", reverted = outer / ".source";
    fs::create_directory(reverted);
    const auto source = file_in(reverted, edited.source_name, ledger_of(directory));
    revert_edited_model(directory, source.string());
    const auto card = model::read_model_card(source.string());
    const auto transformer = model::Transformer::load(card, {});
    const auto tokenizer = model::Tokenizer::load(source.string());
    {
      // Hashes before and after are those of this order of edits.
      AppliedDeltas applied(*transformer);
      for (auto& entry : edited.entries) {
        std::vector<TensorChange> changes;
        for (const auto& delta : entry.deltas) {
          changes.push_back(describe_change(*transformer, delta));
          applied.apply(delta);
        }
        auto next = changes.begin();
        for (auto& each : entry.certificates) {
          const auto count = std::min<std::ptrdiff_t>(std::ssize(each.changes), changes.end() - next);
          each.changes.assign(next, next + count);
          next += count;
        }
      }
    }
    write_edited_model(*transformer, *tokenizer, edited.entries, model::writable_type(card), inner.string(),
                       edited.beside, expected_sha256);
    for (const auto& file : fs::directory_iterator(inner)) fs::rename(file.path(), outer / file.path().filename());
    fs::remove_all(inner);
    fs::remove_all(reverted);
  });
}

}  // namespace

EditedModel read_edited_model(const std::string& directory) {
  return read(directory, read_ledger(ledger_of(directory)));
}

EditedModel verify_edited_model(const std::string& directory) {
  const fs::path folder(directory);
  const auto ledger = read_ledger(ledger_of(folder));
  auto edited = read(folder, ledger);
  for (const auto& tensor : model::read_safetensors((folder / kModelFile).string()).tensors) {
    const auto recorded = ledger.at("tensors").find(tensor.name);
    if (recorded == ledger.at("tensors").end() || recorded->at("sha256_after") != model::sha256_hex(tensor.bytes))
      refuse_altered(folder / kModelFile);
  }
  for (const auto& file : ledger.at("originals")) {
    const auto saved = file_in(folder / kFolder / kOriginals, file.at("name"), ledger_of(folder));
    require_sha256(saved, file.at(file.contains("segments") ? "saved_sha256" : "sha256"));
    if (file.contains("edited_sha256"))
      require_sha256(file_in(folder, file.at("name"), ledger_of(folder)), file.at("edited_sha256"));
  }
  return edited;
}

void require_source(const EditedModel& edited, const model::ModelCard& card, const std::string& directory) {
  if (card.sha256("") == edited.source_sha256) return;
  throw InputError(card.name + ": is not the model that " + directory + " was made from, " + edited.source_name +
                   " with SHA-256 " + edited.source_sha256 + "; name a copy of that one");
}

void replay_edits(const std::string& directory, model::Transformer& transformer, const model::Tokenizer& tokenizer,
                  const std::string& destination) {
  model::require_new_directory(destination);
  const auto edited = read_edited_model(directory);
  require_source(edited, transformer.card(), directory);
  write_edited_model(transformer, tokenizer, edited.entries, model::writable_type(transformer.card()), destination,
                     edited.beside, edited.model_sha256);
}

void drop_edit(const std::string& directory, const std::string& name, const std::string& destination) {
  model::require_new_directory(destination);
  rebuild(directory, destination, "", [&](EditedModel& edited) {
    auto& entries = edited.entries;
    const auto dropped = std::ranges::find(entries, name, &LedgerEntry::name);
    std::string names;
    for (const auto& entry : entries) names += (names.empty() ? "`" : ", `") + entry.name + "`";
    if (dropped == entries.end())
      throw InputError(directory + ": its ledger has no edit `" + name + "`\n  help: it holds " + names);
    if (entries.size() == 1)
      throw InputError(directory + ": `" + name +
                       "` is its only edit\n  help: `proviso revert` gives the model before it");
    for (auto later = dropped + 1; later != entries.end(); ++later)
      later->remark += (later->remark.empty() ? "" : "; ") + ("made and measured with `" + name + "`, since dropped");
    entries.erase(dropped);
  });
}

void squash_edits(const std::string& directory, const std::string& destination) {
  model::require_new_directory(destination);
  const auto expected = read_edited_model(directory).model_sha256;
  rebuild(directory, destination, expected, [&](EditedModel& edited) {
    if (edited.entries.size() < 2) throw InputError(directory + ": its ledger has no two edits to make one of");
    LedgerEntry all = std::move(edited.entries.front());
    for (auto entry = edited.entries.begin() + 1; entry != edited.entries.end(); ++entry) {
      all.name += ", " + entry->name;
      if (entry->rule_file != all.rule_file) all.rule_file += ", " + entry->rule_file;
      if (entry->rule_sha256 != all.rule_sha256) all.rule_sha256 += ", " + entry->rule_sha256;
      std::ranges::move(entry->deltas, std::back_inserter(all.deltas));
      std::ranges::move(entry->certificates, std::back_inserter(all.certificates));
      for (const auto& [name, value] : entry->costs) all.costs.emplace_back(entry->name + ": " + name, value);
    }
    edited.entries = {std::move(all)};
  });
}

}  // namespace proviso::editing

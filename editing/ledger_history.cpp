#include "editing/ledger_history.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>

#include "editing/ledger_entry_file.hpp"
#include "editing/ledger_file.hpp"
#include "editing/originals.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/sha256.hpp"

namespace proviso::editing {
namespace {

namespace fs = std::filesystem;
using model::InputError;

EditedModel read(const EditedPlace& place) {
  const auto& ledger = place.ledger;
  EditedModel edited;
  edited.form = place.form;
  const auto& source = ledger.at("source");
  edited.source = {source.at("name"), source.at("format"), source.at("sha256")};
  edited.model_sha256 = ledger.at("model_sha256");
  edited.entries = read_entries(ledger, place.records);
  for (const auto& tensor : ledger.at("rounded"))
    edited.rounded.push_back({tensor.at("tensor"), tensor.at("type"), number_in(tensor.at("relative_error")),
                              number_in(tensor.at("change_kept"))});
  for (const auto& file : ledger.at("beside")) {
    const auto path = file_in(place.folder, file.at("name"), place.ledger_path());
    require_sha256(path, file.at("sha256"));
    edited.beside.emplace_back(file.at("name"), model::MappedFile::open(path.string())->text());
  }
  if (ledger.contains("inherited_keys_sha256")) {
    require_sha256(place.records / kInheritedKeys, ledger.at("inherited_keys_sha256"));
    edited.inherited_keys = read_kept_keys(place.records / kInheritedKeys);
  }
  return edited;
}

/// Restores the source into `folder` and gives the name that it goes by as a model: that of a GGUF file, of a folder,
/// or of its one weight file where that is no model.safetensors.
std::string restore_source(const EditedPlace& place, const std::string& path, const fs::path& folder) {
  std::vector<std::string> weights;
  for (const auto& file : place.ledger.at("originals"))
    if (file.contains("segments")) weights.push_back(file.at("name"));
  if (weights.empty()) refuse_altered(place.ledger_path());
  const auto first = file_in(folder, weights.front(), place.ledger_path());
  const auto source = folder / "source";
  revert_edited_model(path, (place.gguf() ? first : source).string());
  if (place.gguf()) return first.string();
  const bool alone = weights.size() == 1 && weights.front() != kModelFile;
  return (alone ? source / weights.front() : source).string();
}

/// Rebuilds the model from what the one at `path` saved of its source, with other entries.
void rebuild(const std::string& path, const std::string& destination, bool same_bytes,
             const std::function<void(EditedModel&)>& change) {
  const auto place = open_edited(path);
  if (place.form.kind == WrittenForm::Kind::adapter)
    throw InputError(path +
                     ": is an adapter, which holds nothing of its model to rebuild it from\n"
                     "  help: apply the edits that are to stay again, with --as adapter");
  if (place.gguf() && fs::path(destination).extension() != ".gguf")
    throw InputError(destination + ": " + path + " is a GGUF file\n  help: name a .gguf file");
  require_new_output(destination, place.form.kind);
  auto edited = read(place);
  change(edited);

  const model::ScratchFolder scratch(destination);
  const auto source = restore_source(place, path, scratch.path());
  const auto transformer = model::Transformer::load(model::read_model_card(source), {});
  const auto tokenizer = model::Tokenizer::load(source);
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
  write_edited_model(*transformer, *tokenizer, edited.entries,
                     {destination, edited.form, edited.beside, same_bytes ? edited.model_sha256 : "", edited.source,
                      edited.inherited_keys});
}

}  // namespace

EditedModel read_edited_model(const std::string& path) { return read(open_edited(path)); }

KeptKeys kept_keys(const std::string& path) {
  const bool file = fs::is_regular_file(path), gguf = fs::path(path).extension() == ".gguf";
  const fs::path place = file && !gguf ? fs::path(path).parent_path() : fs::path(path);
  const auto records = gguf ? records_beside(place) : place / kFolder;
  if (!fs::is_regular_file(records / kLedger)) return {};
  const auto edited = read_edited_model(place.empty() ? "." : place.string());
  auto keys = edited.inherited_keys;
  for (const auto& entry : edited.entries) join_keys(entry.kept_keys, keys);
  return keys;
}

EditedModel verify_edited_model(const std::string& path) {
  const auto place = open_edited(path);
  auto edited = read(place);
  for (const auto& [name, tensor] : tensors_of(place.model, place.gguf())) {
    const auto recorded = place.ledger.at("tensors").find(name);
    if (recorded == place.ledger.at("tensors").end() || recorded->at("sha256_after") != model::sha256_hex(tensor.bytes))
      refuse_altered(place.model);
  }
  for (const auto& file : place.ledger.at("originals")) {
    const auto saved = file_in(place.records / kOriginals, file.at("name"), place.ledger_path());
    require_sha256(saved, file.at(file.contains("segments") ? "saved_sha256" : "sha256"));
    if (file.contains("edited_sha256"))
      require_sha256(file_in(place.folder, file.at("name"), place.ledger_path()), file.at("edited_sha256"));
  }
  for (const auto& file : place.ledger.value("added", nlohmann::ordered_json::array()))
    require_sha256(file_in(place.folder, file.at("name"), place.ledger_path()), file.at("sha256"));
  return edited;
}

void require_source(const EditedModel& edited, const model::ModelCard& card, const std::string& path) {
  if (card.sha256("") == edited.source.sha256) return;
  throw InputError(card.name + ": is not the model that " + path + " was made from, " + edited.source.name +
                   " with SHA-256 " + edited.source.sha256 + "; name a copy of that one");
}

void replay_edits(const std::string& path, model::Transformer& transformer, const model::Tokenizer& tokenizer,
                  const std::string& destination) {
  const auto edited = read_edited_model(path);
  require_source(edited, transformer.card(), path);
  write_edited_model(
      transformer, tokenizer, edited.entries,
      {destination, edited.form, edited.beside, edited.model_sha256, edited.source, edited.inherited_keys});
}

void drop_edit(const std::string& path, const std::string& name, const std::string& destination) {
  rebuild(path, destination, /*same_bytes=*/false, [&](EditedModel& edited) {
    auto& entries = edited.entries;
    const auto dropped = std::ranges::find(entries, name, &LedgerEntry::name);
    std::string names;
    for (const auto& entry : entries) names += (names.empty() ? "`" : ", `") + entry.name + "`";
    if (dropped == entries.end())
      throw InputError(path + ": its ledger has no edit `" + name + "`\n  help: it holds " + names);
    if (entries.size() == 1)
      throw InputError(path + ": `" + name + "` is its only edit\n  help: `proviso revert` gives the model before it");
    for (auto entry = entries.begin(); entry != entries.end(); ++entry) {
      const std::string how = entry > dropped ? "made and measured with `" : "last measured with `";
      entry->remark += (entry->remark.empty() ? "" : "; ") + (how + name + "`, since dropped");
      for (auto& expectation : entry->expectations) expectation.final_status.clear();
    }
    entries.erase(dropped);
  });
}

void squash_edits(const std::string& path, const std::string& destination) {
  rebuild(path, destination, /*same_bytes=*/true, [&](EditedModel& edited) {
    if (edited.entries.size() < 2) throw InputError(path + ": its ledger has no two edits to make one of");
    for (auto& entry : edited.entries) {
      for (auto& expectation : entry.expectations) expectation.text.insert(0, entry.name + ": ");
      if (!entry.remark.empty()) entry.remark.insert(0, entry.name + ": ");
    }
    LedgerEntry all = std::move(edited.entries.front());
    for (auto entry = edited.entries.begin() + 1; entry != edited.entries.end(); ++entry) {
      all.name += ", " + entry->name;
      if (entry->rule_file != all.rule_file) all.rule_file += ", " + entry->rule_file;
      if (entry->rule_sha256 != all.rule_sha256) all.rule_sha256 += ", " + entry->rule_sha256;
      if (!entry->remark.empty()) all.remark += (all.remark.empty() ? "" : "; ") + entry->remark;
      std::ranges::move(entry->deltas, std::back_inserter(all.deltas));
      std::ranges::move(entry->certificates, std::back_inserter(all.certificates));
      std::ranges::move(entry->expectations, std::back_inserter(all.expectations));
      join_keys(entry->kept_keys, all.kept_keys);
      for (const auto& [name, value] : entry->costs) all.costs.emplace_back(entry->name + ": " + name, value);
    }
    edited.entries = {std::move(all)};
  });
}

}  // namespace proviso::editing

#include "editing/ledger.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "editing/adapter.hpp"
#include "editing/ledger_entry_file.hpp"
#include "editing/ledger_file.hpp"
#include "editing/originals.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/model/gguf_writer.hpp"
#include "runtime/model/model_writer.hpp"

namespace proviso::editing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using model::InputError;

/// Of the files beside a model's weights, those that are part of it.
const std::set<fs::path> kSideFileExtensions = {".json", ".txt", ".jinja", ".model"};

// ---- the source --------------------------------------------------------------------------------

/// The files of the model's source that the edited model stands for. A GGUF file whose edited model is a folder
/// becomes Hugging Face files first, in `scratch`, of the model as loaded.
struct SourceFiles {
  bool gguf = false;  ///< the weight file is one
  std::vector<fs::path> weights;
  std::vector<std::pair<fs::path, fs::path>> beside;  ///< name in the ledger, and where it lies
  CanonicalNames names;
};

/// What an earlier `apply` wrote, by which that one is undone in turn.
void add_records(const fs::path& records, SourceFiles& source) {
  if (!fs::is_directory(records)) return;
  for (const auto& entry : fs::recursive_directory_iterator(records)) {
    if (entry.is_regular_file() && entry.path().filename() != kUnfinished)
      source.beside.emplace_back(kFolder / entry.path().lexically_relative(records), entry.path());
  }
}

SourceFiles source_files(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                         const WrittenForm& form, const fs::path& scratch) {
  const auto& card = transformer.card();
  SourceFiles source;
  auto folder = fs::path(card.config_file).parent_path();
  if (form.kind == WrittenForm::Kind::gguf) {
    source.gguf = true;
    source.weights = {card.path};
    add_records(records_beside(card.path), source);
    std::ranges::sort(source.beside);
    return source;
  }
  if (card.format == model::SourceFormat::gguf) {
    fs::create_directories(scratch);
    model::write_model_files(transformer, tokenizer, scratch.string(), model::writable_type(card));
    folder = scratch;
    source.weights = {scratch / kModelFile};
  } else {
    source.weights.assign(card.weight_files.begin(), card.weight_files.end());
    for (const auto& tensor : card.tensors) source.names.emplace(tensor.stored.name, tensor.name);
  }
  if (folder.empty()) folder = ".";
  const auto add = [&](const fs::path& name) { source.beside.emplace_back(name, folder / name); };
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && kSideFileExtensions.contains(entry.path().extension())) add(entry.path().filename());
  // The rules that stayed hooks with an earlier `apply`.
  for (const char* name : {kHookRules, kHookVectors})
    if (fs::is_regular_file(folder / name)) add(name);
  add_records(folder / kFolder, source);
  std::ranges::sort(source.beside);
  return source;
}

// ---- writing -----------------------------------------------------------------------------------

/// A file of the edited model: under its name while it is being written, and for the ledger.
struct ModelFile {
  fs::path path;
  bool gguf = false;
};

/// Writes an edited model's files, and what its ledger says of them.
class EditWriter {
 public:
  EditWriter(model::Transformer& transformer, const model::Tokenizer& tokenizer,
             const std::vector<LedgerEntry>& entries, const EditedOutput& output)
      : transformer_(transformer), tokenizer_(tokenizer), entries_(entries), output_(output) {}

  /// Into a folder that is being made.
  void folder(const fs::path& folder) {
    const auto records = folder / kFolder;
    fs::create_directories(records);
    const bool adapter = output_.form.kind == WrittenForm::Kind::adapter;
    auto beside = output_.beside;
    if (adapter) {
      const auto modules = adapter_modules(transformer_, entries_);
      write_adapter_weights(modules, (folder / kAdapterWeights).string());
      // A replayed adapter brings its own, which names the model that it was made on.
      if (std::ranges::none_of(beside, [](const auto& file) { return file.first == kAdapterConfig; }))
        beside.emplace_back(kAdapterConfig, adapter_config(transformer_, modules));
      for (const auto& [name, bytes] : beside) model::write_file_atomically((folder / name).string(), bytes);
      return record({folder / kAdapterWeights}, records, folder, beside, nullptr);
    }
    const auto scratch = records / "source";
    const auto source = source_files(transformer_, tokenizer_, output_.form, scratch);
    {
      AppliedDeltas applied(transformer_);
      apply(applied);
      model::write_model_files(transformer_, tokenizer_, folder.string(),
                               output_.form.type.value_or(model::writable_type(transformer_.card())));
    }
    for (const auto& [name, bytes] : beside) model::write_file_atomically((folder / name).string(), bytes);
    record({folder / kModelFile}, records, folder, beside, &source);
    fs::remove_all(scratch);
  }

  /// Into a file and its folder of records that are both being made.
  void gguf(const fs::path& file, const fs::path& records) {
    const auto source = source_files(transformer_, tokenizer_, output_.form, {});
    {
      AppliedDeltas applied(transformer_);
      const auto changed = apply(applied);
      model::write_gguf_model(transformer_, changed, output_.form.type, file.string());
    }
    record({file, true}, records, {}, {}, &source);
  }

 private:
  /// The names of the tensors that changed.
  std::set<std::string> apply(AppliedDeltas& applied) const {
    std::set<std::string> changed;
    for (const auto& entry : entries_) {
      for (const auto& delta : entry.deltas) {
        applied.apply(delta);
        changed.insert(delta.tensor);
      }
    }
    return changed;
  }

  /// The ledger of what was written. `source` is null where the source is left as it is.
  void record(const ModelFile& file, const fs::path& records, const fs::path& folder,
              const std::vector<std::pair<std::string, std::string>>& beside, const SourceFiles* source) {
    const auto sha256 = file_sha256(file.path);
    if (!output_.expected_sha256.empty() && sha256 != output_.expected_sha256)
      throw InputError(output_.path +
                       ": the edits come to other bytes here than in their ledger, so nothing was written; "
                       "replay them on the machine and with the version that made them");
    const auto& card = transformer_.card();
    const auto from = output_.source.value_or(
        EditedSource{card.name, card.format == model::SourceFormat::gguf ? "gguf" : "hugging_face", card.sha256("")});
    const auto& form = output_.form;
    Json ledger = {{"ledger", kLedgerVersion},
                   {"form",
                    {{"kind", form_name(form.kind)},
                     {"type", form.type ? Json(model::element_type_name(*form.type)) : Json(nullptr)}}},
                   {"source", {{"name", from.name}, {"format", from.format}, {"sha256", from.sha256}}},
                   {"edits", write_entries(entries_, records)}};
    ledger["rounded"] = Json::array();
    for (const auto& tensor : rounded_tensors(transformer_, entries_, form, /*unchanged_too=*/false))
      ledger["rounded"].push_back({{"tensor", tensor.tensor},
                                   {"type", model::element_type_name(tensor.type)},
                                   {"relative_error", tensor.relative_error},
                                   {"change_kept", *tensor.change_kept}});
    ledger["beside"] = Json::array();
    for (const auto& [name, bytes] : beside)
      ledger["beside"].push_back({{"name", name}, {"sha256", file_sha256(folder / name)}});
    ledger["model_sha256"] = sha256;
    if (!output_.inherited_keys.empty()) {
      write_kept_keys(records / kInheritedKeys, output_.inherited_keys);
      ledger["inherited_keys_sha256"] = file_sha256(records / kInheritedKeys);
    }

    const auto edited = tensors_of(file.path, file.gguf);
    Json tensors = Json::object();
    for (const auto& [name, tensor] : edited)
      tensors[name] = {{"dtype", model::element_type_name(tensor.type)},
                       {"shape", tensor.shape},
                       {"sha256_before", nullptr},
                       {"sha256_after", model::sha256_hex(tensor.bytes)}};
    ledger["originals"] = source ? save(*source, edited, records / kOriginals, folder, tensors) : Json::array();
    if (!file.gguf) ledger["added"] = added(file.path, folder, ledger);
    ledger["tensors"] = tensors;
    ledger["seal"] = seal_of(ledger);
    model::write_file_atomically((records / kLedger).string(), ledger.dump(1) + "\n");
  }

  /// The other files of the folder that the source does not have, such as a GGUF file's generation_config.json.
  static Json added(const fs::path& model_file, const fs::path& folder, const Json& ledger) {
    std::set<std::string> known = {model_file.filename().string()};
    for (const char* list : {"originals", "beside"})
      for (const auto& file : ledger.at(list)) known.insert(file.at("name").get<std::string>());
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const auto name = entry.path().filename().string();
      if (entry.is_regular_file() && !known.contains(name)) names.insert(name);
    }
    Json files = Json::array();
    for (const auto& name : names) files.push_back({{"name", name}, {"sha256", file_sha256(folder / name)}});
    return files;
  }

  /// Saves what the edited model no longer holds of its source.
  static Json save(const SourceFiles& source, const TensorsByName& edited, const fs::path& originals,
                   const fs::path& folder, Json& tensors) {
    fs::create_directories(originals);
    Json files = Json::array();
    for (const auto& path : source.weights) {
      const auto saved = originals / path.filename();
      files.push_back(save_weight_file(path, source.gguf, source.names, edited, saved, tensors));
      files.back()["saved_sha256"] = file_sha256(saved);
    }
    for (const auto& [name, from] : source.beside) {
      fs::create_directories((originals / name).parent_path());
      model::write_file_atomically((originals / name).string(), model::MappedFile::open(from.string())->text());
      files.push_back({{"name", name.string()}, {"sha256", file_sha256(from)}});
      const bool of_records = *name.begin() == kFolder;  // this edit's stand in their place
      if (!of_records && fs::exists(folder / name)) files.back()["edited_sha256"] = file_sha256(folder / name);
    }
    return files;
  }

  model::Transformer& transformer_;
  const model::Tokenizer& tokenizer_;
  const std::vector<LedgerEntry>& entries_;
  const EditedOutput& output_;
};

/// Records whose writer was killed before their file was in place. Without it they are of no use to anybody.
bool is_orphaned(const fs::path& file, const fs::path& records) {
  return !fs::exists(fs::symlink_status(file)) && fs::exists(records / kUnfinished);
}

/// A new file and the folder of records beside it. The folder is there first: no such file is ever without its ledger.
void write_with_records(const std::string& path,
                        const std::function<void(const fs::path& file, const fs::path& records)>& fill) {
  const auto records = records_beside(path).string();
  if (is_orphaned(path, records)) fs::remove_all(records);
  bool recorded = false;
  try {
    model::write_new_file_atomically(path, [&](const std::string& file) {
      model::write_directory_atomically(records, [&](const std::string& folder) {
        fill(file, folder);
        model::write_file_atomically((fs::path(folder) / kUnfinished).string(), "");
      });
      recorded = true;
    });
    fs::remove(fs::path(records) / kUnfinished);
  } catch (...) {
    std::error_code ignored;
    if (recorded) fs::remove_all(records, ignored);
    throw;
  }
}

// ---- reverting ---------------------------------------------------------------------------------

/// Restores every file of the source to where `to` says, by its name; returns those that have changed since.
std::vector<std::string> restore(const EditedPlace& place, const std::function<fs::path(const std::string&)>& to) {
  const auto originals = place.records / kOriginals;
  const auto edited = tensors_of(place.model, place.gguf());
  std::vector<std::string> changed;
  for (const auto& file : place.ledger.at("originals")) {
    const std::string name = file.at("name");
    const auto saved = file_in(originals, name, place.ledger_path());
    const auto target = to(name);
    if (target.has_parent_path()) fs::create_directories(target.parent_path());
    if (file.contains("segments")) {
      require_sha256(saved, file.at("saved_sha256"));
      restore_weight_file(file, saved, edited, target);
    } else {
      require_sha256(saved, file.at("sha256"));
      model::write_file_atomically(target.string(), model::MappedFile::open(saved.string())->text());
      const auto kept = file.find("edited_sha256");
      const auto beside = file_in(place.folder, name, place.ledger_path());
      if (kept != file.end() && (!fs::is_regular_file(beside) || file_sha256(beside) != kept->get<std::string>()))
        changed.push_back(name);
    }
    require_sha256(target, file.at("sha256"));
  }
  return changed;
}

void restore_gguf(const EditedPlace& place, const std::string& destination) {
  const auto is_record = [](const Json& file) { return !file.contains("segments"); };
  const auto into = [&](const fs::path& file, const fs::path& records) {
    restore(place, [&](const std::string& name) -> fs::path {
      const auto relative = fs::path(name).lexically_relative(kFolder);
      const bool of_records = *fs::path(name).begin() == kFolder;
      return of_records ? file_in(records, relative.string(), place.ledger_path()) : file;
    });
  };
  if (std::ranges::any_of(place.ledger.at("originals"), is_record)) return write_with_records(destination, into);
  model::write_new_file_atomically(destination, [&](const std::string& file) { into(file, {}); });
}

bool is_gguf_name(const std::string& path) { return fs::path(path).extension() == ".gguf"; }

}  // namespace

void write_edited_model(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<LedgerEntry>& entries, const EditedOutput& output) {
  EditWriter writer(transformer, tokenizer, entries, output);
  if (output.form.kind == WrittenForm::Kind::gguf)
    return write_with_records(output.path,
                              [&](const fs::path& file, const fs::path& records) { writer.gguf(file, records); });
  model::write_directory_atomically(output.path, [&](const std::string& temporary) { writer.folder(temporary); });
}

void require_new_output(const std::string& path, WrittenForm::Kind kind) {
  model::require_new_directory(path);
  if (kind != WrittenForm::Kind::gguf || is_orphaned(path, records_beside(path))) return;
  model::require_new_directory(records_beside(path).string());
}

std::vector<std::string> revert_edited_model(const std::string& path, const std::string& destination) {
  const auto place = open_edited(path);
  if (place.form.kind == WrittenForm::Kind::adapter)
    throw InputError(path + ": is an adapter, which has changed no model\n  help: load the model without it");
  if (place.gguf() && !is_gguf_name(destination))
    throw InputError(destination + ": " + path + " was made from a GGUF file\n  help: name a .gguf file");
  require_new_output(destination, place.form.kind);
  if (place.gguf()) {
    restore_gguf(place, destination);
    return {};
  }
  std::vector<std::string> changed;
  model::write_directory_atomically(destination, [&](const std::string& temporary) {
    changed = restore(place, [&](const std::string& name) { return file_in(temporary, name, place.ledger_path()); });
  });
  return changed;
}

}  // namespace proviso::editing

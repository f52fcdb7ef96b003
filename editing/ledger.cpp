#include "editing/ledger.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string_view>

#include "editing/ledger_file.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/json_text.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/model/model_writer.hpp"

namespace proviso::editing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using model::InputError;

/// Of the files beside a model's weights, those that are part of it.
const std::set<fs::path> kSideFileExtensions = {".json", ".txt", ".jinja", ".model"};

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
  std::vector<model::TensorToWrite> written;
  for (const auto& [name, tensor] : tensors)
    written.push_back({name,
                       model::ElementType::f32,
                       tensor.sizes().vec(),
                       {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
  model::write_safetensors(
      path, written,
      {{"format", "pt"}, {"change", "number by number: W' = W + left right, each the sum of its parts"}});
}

Json numbers_json(const NamedNumbers& numbers) {
  Json json = Json::object();
  for (const auto& [name, value] : numbers) json[name] = value;
  return json;
}

Json entry_json(const LedgerEntry& entry, const std::string& factors) {
  Json certificates = Json::array();
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
  Json json = {{"name", entry.name}, {"rule_file", entry.rule_file}, {"rule_sha256", entry.rule_sha256},
               {"factors", factors}, {"certificates", certificates}, {"costs", numbers_json(entry.costs)}};
  if (!entry.remark.empty()) json["remark"] = entry.remark;
  return json;
}

/// The model's source as Hugging Face files. A GGUF file's are made in `scratch`, of the model as loaded.
struct Source {
  std::vector<std::string> weight_files;
  fs::path folder;
  std::vector<fs::path> side_files;                    ///< relative to `folder`
  std::map<std::string, std::string> canonical_names;  ///< by the name in the file

  std::string canonical(const std::string& stored) const {
    const auto found = canonical_names.find(stored);
    return found == canonical_names.end() ? stored : found->second;
  }
};

Source source_of(const model::Transformer& transformer, const model::Tokenizer& tokenizer, model::ElementType type,
                 const fs::path& scratch) {
  const auto& card = transformer.card();
  Source source;
  source.folder = fs::path(card.config_file).parent_path();
  if (card.format == model::SourceFormat::gguf) {
    fs::create_directories(scratch);
    model::write_model_files(transformer, tokenizer, scratch.string(), type);
    source.folder = scratch;
    source.weight_files = {(scratch / kModelFile).string()};
  } else {
    source.weight_files = card.weight_files;
    for (const auto& tensor : card.tensors) source.canonical_names.emplace(tensor.stored.name, tensor.name);
  }
  if (source.folder.empty()) source.folder = ".";
  for (const auto& entry : fs::directory_iterator(source.folder))
    if (entry.is_regular_file() && kSideFileExtensions.contains(entry.path().extension()))
      source.side_files.push_back(entry.path().filename());
  // What an earlier `apply` wrote: its ledger, by which that one is undone in turn, and the rules that stayed hooks.
  for (const char* name : {kHookRules, kHookVectors})
    if (fs::is_regular_file(source.folder / name)) source.side_files.emplace_back(name);
  if (fs::is_directory(source.folder / kFolder))
    for (const auto& entry : fs::recursive_directory_iterator(source.folder / kFolder))
      if (entry.is_regular_file()) source.side_files.push_back(entry.path().lexically_relative(source.folder));
  std::sort(source.side_files.begin(), source.side_files.end());
  return source;
}

using TensorsByName = std::map<std::string, model::StoredTensor>;

TensorsByName tensors_by_name(const std::string& path) {
  TensorsByName tensors;
  for (auto& tensor : model::read_safetensors(path).tensors) tensors.emplace(tensor.name, std::move(tensor));
  return tensors;
}

/// Keeps of a weight file what `edited` does not hold: a list of segments, in order, each the name of a tensor of
/// the edited model that has the same bytes, or the number of bytes that come next in `saved_path`.
Json save_weight_file(const std::string& path, const Source& source, const TensorsByName& edited,
                      const std::string& saved_path, Json& tensors) {
  const auto file = model::MappedFile::open(path);
  const auto whole = file->bytes();
  auto stored = model::read_safetensors(path).tensors;
  // Offsets into this mapping: `read_safetensors` has made its own.
  const auto offset = [](const model::StoredTensor& tensor) {
    return static_cast<std::size_t>(tensor.bytes.data() - tensor.file->bytes().data());
  };
  std::ranges::sort(stored, {}, offset);

  model::AtomicFile saved(saved_path);
  Json segments = Json::array();
  std::size_t written = 0;
  const auto save_until = [&](std::size_t end) {
    if (end == written) return;
    saved.write(whole.subspan(written, end - written));
    segments.push_back(end - written);
    written = end;
  };
  for (const auto& tensor : stored) {
    const auto name = source.canonical(tensor.name);
    const auto now = edited.find(name);
    const bool unchanged = now != edited.end() && std::ranges::equal(now->second.bytes, tensor.bytes);
    tensors[name]["dtype_before"] = model::element_type_name(tensor.type);
    tensors[name]["sha256_before"] =
        unchanged ? tensors[name].at("sha256_after") : Json(model::sha256_hex(tensor.bytes));
    if (!unchanged) continue;
    save_until(offset(tensor));
    segments.push_back(name);
    written = offset(tensor) + tensor.bytes.size();
  }
  save_until(whole.size());
  saved.commit();
  return {{"name", fs::path(path).filename().string()}, {"sha256", file_sha256(path)}, {"segments", segments}};
}

// ---- reverting ---------------------------------------------------------------------------------

void restore_weight_file(const Json& file, const fs::path& saved_path, const TensorsByName& edited,
                         const fs::path& to) {
  const auto saved = model::MappedFile::open(saved_path.string());
  std::size_t read = 0;
  model::AtomicFile out(to.string());
  for (const auto& segment : file.at("segments")) {
    if (segment.is_string()) {
      out.write(edited.at(segment.get<std::string>()).bytes);
      continue;
    }
    const auto length = segment.get<std::size_t>();
    if (length > saved->bytes().size() - read) refuse_altered(saved_path);
    out.write(saved->bytes().subspan(read, length));
    read += length;
  }
  out.commit();
}

}  // namespace

void write_edited_model(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<LedgerEntry>& entries, model::ElementType type, const std::string& directory,
                        const std::vector<std::pair<std::string, std::string>>& extra_files,
                        const std::string& expected_sha256) {
  model::write_directory_atomically(directory, [&](const std::string& temporary) {
    const fs::path folder(temporary), records = folder / kFolder, originals = records / kOriginals;
    const fs::path scratch = records / "source";
    fs::create_directories(originals);
    const auto source = source_of(transformer, tokenizer, type, scratch);
    {
      AppliedDeltas applied(transformer);
      for (const auto& entry : entries)
        for (const auto& delta : entry.deltas) applied.apply(delta);
      model::write_model_files(transformer, tokenizer, temporary, type);
    }
    if (!expected_sha256.empty() && file_sha256(folder / kModelFile) != expected_sha256)
      throw InputError(directory +
                       ": the edits come to other bytes here than in their ledger, so nothing was written; "
                       "replay them on the machine and with the version that made them");
    for (const auto& [name, bytes] : extra_files) model::write_file_atomically((folder / name).string(), bytes);

    const auto& card = transformer.card();
    const bool gguf = card.format == model::SourceFormat::gguf;
    Json ledger = {
        {"ledger", kLedgerVersion},
        {"source", {{"name", card.name}, {"format", gguf ? "gguf" : "hugging_face"}, {"sha256", card.sha256("")}}},
        {"edits", Json::array()}};
    for (const auto& entry : entries) {
      const auto factors = "edit-" + std::to_string(ledger["edits"].size() + 1) + ".safetensors";
      write_factors((records / factors).string(), entry);
      ledger["edits"].push_back(entry_json(entry, factors));
      ledger["edits"].back()["factors_sha256"] = file_sha256(records / factors);
    }

    const auto edited = tensors_by_name((folder / kModelFile).string());
    Json tensors = Json::object();
    for (const auto& [name, tensor] : edited)
      tensors[name] = {{"dtype", model::element_type_name(tensor.type)},
                       {"shape", tensor.shape},
                       {"sha256_before", nullptr},
                       {"sha256_after", model::sha256_hex(tensor.bytes)}};
    Json files = Json::array();
    for (const auto& path : source.weight_files) {
      const auto saved = originals / fs::path(path).filename();
      files.push_back(save_weight_file(path, source, edited, saved.string(), tensors));
      files.back()["saved_sha256"] = file_sha256(saved);
    }
    for (const auto& name : source.side_files) {
      const auto from = source.folder / name;
      fs::create_directories((originals / name).parent_path());
      model::write_file_atomically((originals / name).string(), model::MappedFile::open(from.string())->text());
      files.push_back({{"name", name.string()}, {"sha256", file_sha256(from)}});
      const bool record = *name.begin() == kFolder;  // this edit's stands in its place
      if (!record && fs::exists(folder / name)) files.back()["edited_sha256"] = file_sha256(folder / name);
    }
    ledger["beside"] = Json::array();
    for (const auto& [name, bytes] : extra_files)
      ledger["beside"].push_back({{"name", name}, {"sha256", file_sha256(folder / name)}});
    ledger["model_sha256"] = file_sha256(folder / kModelFile);
    ledger["tensors"] = tensors;
    ledger["originals"] = files;
    ledger["seal"] = seal_of(ledger);
    model::write_file_atomically((records / kLedger).string(), ledger.dump(1) + "\n");
    fs::remove_all(scratch);
  });
}

std::vector<std::string> revert_edited_model(const std::string& directory, const std::string& destination) {
  model::require_new_directory(destination);
  const fs::path folder(directory), ledger_path = folder / kFolder / kLedger, originals = folder / kFolder / kOriginals;
  const auto ledger = read_ledger(ledger_path);
  require_sha256(folder / kModelFile, ledger.at("model_sha256"));
  const auto edited = tensors_by_name((folder / kModelFile).string());
  std::vector<std::string> changed;

  model::write_directory_atomically(destination, [&](const std::string& temporary) {
    for (const auto& file : ledger.at("originals")) {
      const auto saved = file_in(originals, file.at("name"), ledger_path);
      const auto to = file_in(temporary, file.at("name"), ledger_path);
      fs::create_directories(to.parent_path());
      if (file.contains("segments")) {
        require_sha256(saved, file.at("saved_sha256"));
        restore_weight_file(file, saved, edited, to);
      } else {
        require_sha256(saved, file.at("sha256"));
        model::write_file_atomically(to.string(), model::MappedFile::open(saved.string())->text());
        const auto beside = file_in(folder, file.at("name"), ledger_path);
        const auto kept = file.find("edited_sha256");
        if (kept != file.end() && (!fs::is_regular_file(beside) || file_sha256(beside) != kept->get<std::string>()))
          changed.push_back(file.at("name"));
      }
      require_sha256(to, file.at("sha256"));
    }
  });
  return changed;
}

}  // namespace proviso::editing

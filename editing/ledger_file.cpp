#include "editing/ledger_file.hpp"

#include <algorithm>

#include "editing/adapter.hpp"
#include "runtime/formats/json_text.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::editing {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using model::InputError;

namespace {

/// Throws `InputError` where there is none, it was altered, or is of another version.
Json read_ledger(const fs::path& path) {
  if (!fs::is_regular_file(path))
    throw InputError(path.string() + ": there is no such ledger; name a model that `proviso apply` wrote");
  const auto file = model::MappedFile::open(path.string());
  const auto text = file->text();
  model::parse_json_object(text, path.string());
  auto ledger = Json::parse(text);
  if (!ledger.contains("seal") || ledger["seal"] != seal_of(ledger)) refuse_altered(path);
  // What version 3 lacks (hashes of files that the source does not have, keys to spare) is optional here.
  if (const auto& version = ledger.at("ledger"); version != kLedgerVersion && version != 3)
    throw InputError(path.string() + ": is a ledger of version " + ledger.at("ledger").dump() +
                     ", which this program does not read; use the version of proviso that wrote it");
  return ledger;
}

}  // namespace

std::string file_sha256(const fs::path& path) { return model::sha256_of_files({path.string()}, ""); }

std::string seal_of(Json ledger) {
  ledger.erase("seal");
  const auto text = ledger.dump();
  return model::sha256_hex(std::as_bytes(std::span(text)));
}

void refuse_altered(const fs::path& path) {
  throw InputError(path.string() +
                   ": has changed since the edit was applied, so the model before it cannot be restored; "
                   "fetch it again as `apply` wrote it");
}

void require_sha256(const fs::path& path, const std::string& expected) {
  if (!fs::is_regular_file(path)) throw InputError(path.string() + ": is missing; fetch it again as `apply` wrote it");
  if (file_sha256(path) != expected) refuse_altered(path);
}

fs::path records_beside(const fs::path& gguf) { return gguf.string() + "." + kFolder; }

EditedPlace open_edited(const std::string& path) {
  EditedPlace place;
  const bool file = fs::is_regular_file(path);
  place.folder = file ? fs::path(path).parent_path() : fs::path(path);
  place.records = file ? records_beside(path) : place.folder / kFolder;
  place.ledger = read_ledger(place.ledger_path());

  const auto& form = place.ledger.at("form");
  const auto kinds = {WrittenForm::Kind::hugging_face, WrittenForm::Kind::gguf, WrittenForm::Kind::adapter};
  const auto kind = std::ranges::find(kinds, form.at("kind").get<std::string>(), form_name);
  if (kind == kinds.end()) refuse_altered(place.ledger_path());
  place.form.kind = *kind;
  if (const auto& type = form.at("type"); !type.is_null()) {
    place.form.type = model::element_type_from_name(type.get<std::string>());
    if (!place.form.type) refuse_altered(place.ledger_path());
  }
  if (place.gguf() != file) refuse_altered(place.ledger_path());
  place.model =
      file ? fs::path(path) : place.folder / (*kind == WrittenForm::Kind::adapter ? kAdapterWeights : kModelFile);
  require_sha256(place.model, place.ledger.at("model_sha256"));
  return place;
}

fs::path file_in(const fs::path& folder, const std::string& name, const fs::path& ledger) {
  const fs::path file(name);
  const bool climbs = std::any_of(file.begin(), file.end(), [](const fs::path& part) { return part == ".."; });
  if (!file.has_filename() || file == "." || file.is_absolute() || climbs) refuse_altered(ledger);
  return folder / file;
}

}  // namespace proviso::editing

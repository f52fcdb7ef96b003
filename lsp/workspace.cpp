#include "lsp/workspace.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "dsl/paths.hpp"

namespace proviso::lsp {

namespace fs = std::filesystem;

const Occurrence* Analysis::at(std::size_t offset) const {
  const Occurrence* best = nullptr;
  for (const Occurrence& each : found) {
    if (each.span.begin > offset) break;
    if (each.span.end < offset) continue;
    // Of two that touch, the one that begins here.
    if (best == nullptr || each.span.begin == offset || best->span.end >= each.span.end) best = &each;
  }
  return best;
}

std::optional<dsl::Symbol> Analysis::symbol(const Occurrence& occurrence) const {
  if (occurrence.role != Occurrence::Role::declaration && occurrence.role != Occurrence::Role::reference)
    return std::nullopt;
  const auto found_symbol = module().scope.find({occurrence.symbol, occurrence.text});
  if (found_symbol == module().scope.end()) return std::nullopt;
  return found_symbol->second;
}

Declared declared(const Analysis& analysis, const dsl::Symbol& symbol) {
  const dsl::Module& home = analysis.modules[symbol.module];
  const auto name = dsl::named(home.file.declarations[symbol.declaration]);
  return {dsl::file_identity(analysis.sources.at(home.file.source).path), name->first, name->second.text};
}

void Workspace::open(const std::string& uri, std::int64_t version, std::string text) {
  open_.insert_or_assign(uri, OpenDocument{uri, version, Text(std::move(text))});
  known_.clear();
}

void Workspace::change(const std::string& uri, std::int64_t version, const Json& changes) {
  const auto found = open_.find(uri);
  if (found == open_.end()) return;
  for (const Json& change : changes) found->second.text = Text(found->second.text.changed(change));
  found->second.version = version;
  known_.clear();
}

void Workspace::close(const std::string& uri) {
  open_.erase(uri);
  known_.clear();
}

void Workspace::forget() { known_.clear(); }

const OpenDocument* Workspace::find(const std::string& uri) const {
  const auto found = open_.find(uri);
  return found == open_.end() ? nullptr : &found->second;
}

std::vector<std::string> Workspace::uris() const {
  std::vector<std::string> all;
  for (const auto& [uri, document] : open_) all.push_back(uri);
  return all;
}

std::shared_ptr<const Analysis> Workspace::analysis(const std::string& path) {
  const std::string identity = dsl::file_identity(path);
  if (const auto found = known_.find(identity); found != known_.end()) return found->second;

  auto made = std::make_shared<Analysis>();
  std::vector<std::pair<std::string, const std::string*>> others;
  const std::string* own = nullptr;
  for (const auto& [uri, document] : open_) {
    const std::string open_path = path_of_uri(uri);
    if (own == nullptr && dsl::file_identity(open_path) == identity) {
      own = &document.text.str();
    } else {
      others.emplace_back(open_path, &document.text.str());
    }
  }
  if (own != nullptr) {
    made->root = made->sources.add(path, *own);
  } else {
    dsl::FileText file = dsl::read_rule_file(path);
    if (!file.text) return nullptr;
    made->root = made->sources.add(path, std::move(*file.text));
  }
  // `use` finds these before it looks on the disk.
  for (const auto& [other, text] : others) made->sources.add(other, *text);

  std::vector<dsl::Diagnostic> diagnostics;
  made->modules = dsl::resolve(made->sources, {made->root}, load, diagnostics);
  made->parts = std::make_shared<const dsl::CheckedParts>(
      dsl::check_modules(made->sources, made->modules, load, std::move(diagnostics)));
  made->diagnostics = made->parts->diagnostics;
  if (!dsl::has_errors(made->diagnostics))
    made->rules = std::shared_ptr<const dsl::RuleSet>(made->parts, &made->parts->rules);
  made->found = occurrences(made->module());
  known_[identity] = made;
  return made;
}

std::shared_ptr<const Text> Workspace::text(const dsl::SourceSet& sources, dsl::SourceId source) const {
  return std::make_shared<const Text>(sources.at(source).text);
}

std::vector<std::string> Workspace::rule_files() const {
  constexpr std::size_t kMostEntries = 20'000;  // of a folder that someone opened by accident, say /
  std::set<std::string> identities;
  std::vector<std::string> files;
  const auto add = [&](const std::string& path) {
    if (identities.insert(dsl::file_identity(path)).second) files.push_back(path);
  };
  for (const auto& [uri, document] : open_) add(path_of_uri(uri));
  for (const std::string& folder : folders) {
    std::error_code error;
    std::size_t seen = 0;
    fs::recursive_directory_iterator entry(folder, fs::directory_options::skip_permission_denied, error), end;
    for (; !error && entry != end && seen < kMostEntries; entry.increment(error), ++seen) {
      std::error_code unknown;
      if (entry->path().filename().string().starts_with(".")) {
        if (entry->is_directory(unknown)) entry.disable_recursion_pending();
      } else if (entry->path().extension() == ".proviso" && entry->is_regular_file(unknown)) {
        add(entry->path().string());
      }
    }
  }
  return files;
}

}  // namespace proviso::lsp

// From a name to its declaration, to all its places, and to another name.

#include <algorithm>
#include <cctype>
#include <map>

#include "dsl/paths.hpp"
#include "dsl/vocabulary.hpp"
#include "lsp/answers.hpp"

namespace proviso::lsp {
namespace {

Json location(const dsl::SourceSet& sources, dsl::Span span) {
  const dsl::Source& source = sources.at(span.source);
  return {{"uri", uri_of_path(source.path)}, {"range", Text(source.text).range(span)}};
}

dsl::Span declaration_span(const Analysis& analysis, const dsl::Symbol& symbol) {
  return dsl::named(analysis.modules[symbol.module].file.declarations[symbol.declaration])->second.span;
}

/// The name itself, without what qualifies it: `anger` of `pack.anger`.
dsl::Span own_part(const Occurrence& occurrence) {
  const std::size_t dot = occurrence.text.rfind('.');
  dsl::Span span = occurrence.span;
  if (dot != std::string::npos) span.begin += static_cast<std::uint32_t>(dot + 1);
  return span;
}

/// The places of a declaration in one file.
std::vector<const Occurrence*> places(const Analysis& analysis, const Declared& wanted) {
  std::vector<const Occurrence*> found;
  for (const Occurrence& each : analysis.found) {
    const auto symbol = analysis.symbol(each);
    if (symbol && declared(analysis, *symbol) == wanted) found.push_back(&each);
  }
  return found;
}

bool is_identifier(const std::string& name) {
  return !name.empty() && std::isdigit(static_cast<unsigned char>(name.front())) == 0 &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return (c < 0x80 && std::isalnum(c) != 0) || c == '_'; });
}

}  // namespace

Json definition(const Analysis& analysis, std::size_t offset, const std::vector<std::string>& allowed_paths) {
  const Occurrence* here = analysis.at(offset);
  if (here == nullptr) return {};
  if (const auto symbol = analysis.symbol(*here))
    return location(analysis.sources, declaration_span(analysis, *symbol));
  if (here->role == Occurrence::Role::path) {
    const auto file = dsl::open_path(analysis.module().folder, {here->text, here->span}, allowed_paths);
    if (const auto* path = std::get_if<std::string>(&file)) {
      const Json start = {{"line", 0}, {"character", 0}};
      return {{"uri", uri_of_path(*path)}, {"range", {{"start", start}, {"end", start}}}};
    }
  }
  return {};
}

Json references(Workspace& workspace, const Analysis& analysis, std::size_t offset, bool with_declaration) {
  Json found = Json::array();
  const Occurrence* here = analysis.at(offset);
  const auto symbol = here != nullptr ? analysis.symbol(*here) : std::nullopt;
  if (!symbol) return found;
  const Declared wanted = declared(analysis, *symbol);
  for (const std::string& path : workspace.rule_files()) {
    const auto file = workspace.analysis(path);
    if (!file) continue;
    for (const Occurrence* each : places(*file, wanted)) {
      if (each->role == Occurrence::Role::declaration && !with_declaration) continue;
      found.push_back(location(file->sources, each->span));
    }
  }
  return found;
}

Json prepare_rename(const Analysis& analysis, const Text& text, std::size_t offset) {
  const Occurrence* here = analysis.at(offset);
  if (here == nullptr || !analysis.symbol(*here) || offset < own_part(*here).begin) return {};
  return text.range(own_part(*here));
}

Renamed rename(Workspace& workspace, const Analysis& analysis, std::size_t offset, const std::string& name) {
  const Occurrence* here = analysis.at(offset);
  const auto symbol = here != nullptr ? analysis.symbol(*here) : std::nullopt;
  if (!symbol) return {{}, "no name that a rule file declares stands here"};
  if (offset < own_part(*here).begin) return {{}, "this is what `use … as` calls a file: change it there"};
  if (!is_identifier(name)) return {{}, "`" + name + "` is no name: letters, digits and `_`, not a digit first"};
  if (dsl::is_reserved(name)) return {{}, "`" + name + "` is a word of the language"};
  const Declared wanted = declared(analysis, *symbol);
  const std::string& library = workspace.load.library_path;
  if (!library.empty() && wanted.file.starts_with(dsl::file_identity(library) + "/")) {
    return {{}, "`" + wanted.name + "` is declared in the shipped library"};
  }

  std::vector<std::string> files = workspace.rule_files();
  for (const dsl::Module& module : analysis.modules) files.push_back(analysis.sources.at(module.file.source).path);
  std::map<std::string, Json> changes;
  std::map<std::string, bool> seen;
  for (const std::string& path : files) {
    if (!seen.emplace(dsl::file_identity(path), true).second) continue;
    const auto file = workspace.analysis(path);
    if (!file) continue;
    const dsl::Module& module = file->module();
    const auto uses = [&](const dsl::Module& other) {
      return dsl::file_identity(file->sources.at(other.file.source).path) == wanted.file;
    };
    const bool concerned = std::any_of(file->modules.begin(), file->modules.end(), uses);
    if (!concerned) continue;
    // A sentence that cannot be read may hold the name, and would be left behind.
    if (!module.complete) return {{}, path + " has errors: mend them first"};
    const Text text(file->sources.at(file->root).text);
    for (const Occurrence* each : places(*file, wanted)) {
      const dsl::Span own = own_part(*each);
      const std::string renamed = each->text.substr(0, own.begin - each->span.begin) + name;
      if (const auto other = module.scope.find({wanted.kind, renamed}); other != module.scope.end()) {
        return {{},
                std::string(dsl::kind_name(wanted.kind)) + " `" + renamed + "` is declared already, at " +
                    dsl::place_text(file->sources, declaration_span(*file, other->second))};
      }
      changes[uri_of_path(path)].push_back({{"range", text.range(own)}, {"newText", name}});
    }
  }
  return {{{"changes", changes}}, ""};
}

}  // namespace proviso::lsp

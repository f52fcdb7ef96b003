#include "dsl/resolve.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <type_traits>

#include "dsl/parse.hpp"
#include "dsl/paths.hpp"

namespace proviso::dsl {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxRuleFileBytes = std::uintmax_t{16} << 20;  // `parse` allows less; this bounds the read

class Resolver {
 public:
  Resolver(SourceSet& sources, const LoadOptions& options, std::vector<Diagnostic>& diagnostics)
      : sources_(sources), options_(options), diagnostics_(diagnostics) {}

  std::vector<Module> run(const std::vector<SourceId>& given) {
    for (const SourceId source : given) modules_[add(source)].given = true;
    for (std::size_t i = 0, count = modules_.size(); i < count; ++i) link(i);
    refuse_equal_names();
    return std::move(modules_);
  }

 private:
  enum class State { untouched, linking, linked };

  Diagnostic& report(Code code, Span span, std::string message, std::vector<std::string> help = {}) {
    return diagnostics_.emplace_back(make_diagnostic(code, span, std::move(message), std::move(help)));
  }

  /// The module of a source; one file is one module, however often and by whatever path it is named.
  std::size_t add(SourceId source) {
    const std::string path = sources_.at(source).path;
    const auto [entry, is_new] = module_of_.emplace(file_identity(path), modules_.size());
    if (!is_new) return entry->second;
    Parsed parsed = parse(sources_, source);
    Module& module = modules_.emplace_back();
    module.file = std::move(parsed.file);
    module.folder = folder_of(path);
    module.complete = !has_errors(parsed.diagnostics);
    module.lost_use = parsed.lost_use;
    module.lost.insert(parsed.lost.begin(), parsed.lost.end());
    diagnostics_.insert(diagnostics_.end(), parsed.diagnostics.begin(), parsed.diagnostics.end());
    states_.push_back(State::untouched);
    declare(modules_.size() - 1);
    return modules_.size() - 1;
  }

  void declare(std::size_t index) {
    Module& module = modules_[index];
    for (std::size_t i = 0; i < module.file.declarations.size(); ++i) {
      const auto name = named(module.file.declarations[i]);
      if (!name) continue;
      const auto [entry, is_new] = module.scope.emplace(std::pair(name->first, name->second.text), Symbol{index, i});
      if (is_new) continue;
      report(Code::duplicate_name, name->second.span,
             std::string(kind_name(name->first)) + " `" + name->second.text + "` is declared twice",
             {"the first is at " + place_of(entry->second)})
          .related.push_back({span_of(entry->second), "the first declaration"});
    }
  }

  void link(std::size_t index) {
    if (states_[index] != State::untouched) return;
    states_[index] = State::linking;
    chain_.push_back(index);
    std::map<std::string, Span> aliases;
    for (std::size_t i = 0; i < modules_[index].file.declarations.size(); ++i) {
      const auto* found = std::get_if<ast::Use>(&modules_[index].file.declarations[i]);
      if (found == nullptr) continue;
      const ast::Use use = *found;  // `modules_` grows while files are read
      if (use.alias && !aliases.emplace(use.alias->text, use.alias->span).second) {
        report(Code::name_clash, use.alias->span, "`" + use.alias->text + "` stands for two files",
               {"the first is at " + place_text(sources_, aliases.at(use.alias->text)) +
                "; choose another name after `as`"})
            .related.push_back({aliases.at(use.alias->text), "the first"});
        continue;
      }
      if (const auto target = target_of(index, use)) bring(index, *target, use);
    }
    chain_.pop_back();
    states_[index] = State::linked;
  }

  /// Reads the file that a `use` names, and what that file uses.
  std::optional<std::size_t> target_of(std::size_t user, const ast::Use& use) {
    const auto source = source_of(user, use);
    if (!source) {
      modules_[user].complete = false;
      modules_[user].lost_use = true;
      return std::nullopt;
    }
    const std::size_t known = modules_.size();
    const std::size_t target = add(*source);
    if (target == known && use.alias) modules_[target].qualifier = use.alias->text + ".";
    if (states_[target] == State::linking) {
      std::string chain;
      for (auto at = std::find(chain_.begin(), chain_.end(), target); at != chain_.end(); ++at) {
        chain += path_of(*at) + " uses ";
      }
      report(Code::use_cycle, use.span, "these files use each other in a circle: " + chain + path_of(target),
             {"move what both need into a file of its own, and use that"});
    }
    link(target);
    if (!modules_[target].complete) modules_[user].complete = false;
    if (modules_[target].lost_use) modules_[user].lost_use = true;
    for (const std::string& name : modules_[target].lost)
      modules_[user].lost.insert(use.alias ? use.alias->text + "." + name : name);
    return target;
  }

  std::optional<SourceId> source_of(std::size_t user, const ast::Use& use) {
    if (const auto* library = std::get_if<ast::LibraryName>(&use.what)) return library_source(*library);
    const auto& written = std::get<ast::String>(use.what);
    auto opened = open_path(modules_[user].folder, written, options_.allowed_paths);
    if (auto* problem = std::get_if<Diagnostic>(&opened)) {
      diagnostics_.push_back(std::move(*problem));
      return std::nullopt;
    }
    return source_at(std::get<std::string>(opened), written.span);
  }

  std::optional<SourceId> library_source(const ast::LibraryName& library) {
    const std::string file = library_file(options_.library_path, library.name);
    if (!file.empty()) return source_at(file, library.span);
    const auto shipped = library_packs(options_.library_path);
    std::vector<std::string> help;
    auto fixes = spelling_fix(library.span, library.name, shipped);
    if (!fixes.empty()) {
      fixes.front().replacement.insert(0, "std/");
      help.push_back("did you mean " + fixes.front().replacement + "?");
    } else if (!shipped.empty()) {
      std::string names;
      for (const std::string& name : shipped) names += (names.empty() ? "" : ", ") + name;
      help.push_back("the library holds " + names);
    }
    report(Code::unknown_library, library.span, "the shipped library has no `" + library.name + "`", std::move(help))
        .fixes = std::move(fixes);
    return std::nullopt;
  }

  std::optional<SourceId> source_at(const std::string& path, Span span) {
    const std::string identity = file_identity(path);
    for (SourceId id = 0; id < sources_.size(); ++id) {
      if (file_identity(sources_.at(id).path) == identity) return id;
    }
    FileText file = read_rule_file(path);
    if (!file.text) {
      report(Code::unreadable_file, span, "cannot read " + path + ": " + file.problem);
      return std::nullopt;
    }
    return sources_.add(path, std::move(*file.text));
  }

  /// Puts the names that `target` declares itself into `user`'s scope.
  void bring(std::size_t user, std::size_t target, const ast::Use& use) {
    if (user == target) return;
    const std::string qualifier = use.alias ? use.alias->text + "." : "";
    for (std::size_t i = 0; i < modules_[target].file.declarations.size(); ++i) {
      const auto name = named(modules_[target].file.declarations[i]);
      if (!name) continue;
      const Symbol symbol{target, i};
      if (modules_[target].scope.at({name->first, name->second.text}) != symbol)
        continue;  // a duplicate, reported there
      const auto [entry, is_new] =
          modules_[user].scope.emplace(std::pair(name->first, qualifier + name->second.text), symbol);
      if (is_new || entry->second == symbol) continue;
      report(Code::name_clash, use.span,
             "this brings " + std::string(kind_name(name->first)) + " `" + name->second.text +
                 "`, which is declared at " + place_of(symbol) + " and at " + place_of(entry->second),
             {"keep them apart: write `as NAME` after the file, and then NAME." + name->second.text})
          .related = {{span_of(symbol), "declared here"}, {span_of(entry->second), "and here"}};
    }
  }

  /// Reports name rules, edits and checks by their names alone, so files given together share these.
  void refuse_equal_names() {
    std::map<std::pair<SymbolKind, std::string>, Symbol> all;
    for (std::size_t index = 0; index < modules_.size() && modules_[index].given; ++index) {
      for (std::size_t i = 0; i < modules_[index].file.declarations.size(); ++i) {
        const auto name = named(modules_[index].file.declarations[i]);
        if (!name || name->first == SymbolKind::prompts || name->first == SymbolKind::feature) continue;
        const auto [entry, is_new] = all.emplace(std::pair(name->first, name->second.text), Symbol{index, i});
        if (is_new || entry->second.module == index) continue;
        report(Code::name_clash, name->second.span,
               std::string(kind_name(name->first)) + " `" + name->second.text +
                   "` is declared in two files given together",
               {"the other is at " + place_of(entry->second) + "; rename one, or run the files apart"})
            .related.push_back({span_of(entry->second), "the other declaration"});
      }
    }
  }

  std::string path_of(std::size_t module) const { return sources_.at(modules_[module].file.source).path; }
  Span span_of(const Symbol& symbol) const {
    return named(modules_[symbol.module].file.declarations[symbol.declaration])->second.span;
  }
  std::string place_of(const Symbol& symbol) const { return place_text(sources_, span_of(symbol)); }

  SourceSet& sources_;
  const LoadOptions& options_;
  std::vector<Diagnostic>& diagnostics_;
  std::vector<Module> modules_;
  std::vector<State> states_;                     // of each module
  std::vector<std::size_t> chain_;                // the modules being linked, each used by the one before
  std::map<std::string, std::size_t> module_of_;  // by file identity
};

template <class Node>
constexpr std::optional<SymbolKind> kind_of() {
  if constexpr (std::is_same_v<Node, ast::Prompts>) return SymbolKind::prompts;
  if constexpr (std::is_same_v<Node, ast::Feature>) return SymbolKind::feature;
  if constexpr (std::is_same_v<Node, ast::Rule>) return SymbolKind::rule;
  if constexpr (std::is_same_v<Node, ast::Edit>) return SymbolKind::edit;
  if constexpr (std::is_same_v<Node, ast::Circuit>) return SymbolKind::circuit;
  if constexpr (std::is_same_v<Node, ast::Check>) return SymbolKind::check;
  return std::nullopt;
}

}  // namespace

std::string_view kind_name(SymbolKind kind) {
  switch (kind) {
    case SymbolKind::prompts:
      return "prompts";
    case SymbolKind::feature:
      return "feature";
    case SymbolKind::rule:
      return "rule";
    case SymbolKind::edit:
      return "edit";
    case SymbolKind::circuit:
      return "circuit";
    case SymbolKind::check:
      return "check";
  }
  return "";
}

std::optional<std::pair<SymbolKind, ast::Name>> named(const ast::Declaration& declaration) {
  return std::visit(
      [](const auto& node) -> std::optional<std::pair<SymbolKind, ast::Name>> {
        constexpr auto kind = kind_of<std::decay_t<decltype(node)>>();
        if constexpr (kind) {
          return std::pair(*kind, node.name);
        } else {
          return std::nullopt;
        }
      },
      declaration);
}

std::vector<Module> resolve(SourceSet& sources, const std::vector<SourceId>& given, const LoadOptions& options,
                            std::vector<Diagnostic>& diagnostics) {
  return Resolver(sources, options, diagnostics).run(given);
}

std::string library_file(const std::string& library_path, const std::string& name) {
  if (library_path.empty()) return "";
  const fs::path root(library_path);
  std::error_code error;
  for (const fs::path& path : {root / name / (name + ".proviso"), root / (name + ".proviso")}) {
    if (fs::is_regular_file(path, error)) return path.string();
  }
  return "";
}

std::vector<std::string> library_packs(const std::string& library_path) {
  std::vector<std::string> packs;
  if (library_path.empty()) return packs;
  std::error_code error;
  for (fs::directory_iterator entry(library_path, error), end; !error && entry != end; entry.increment(error)) {
    std::string name = entry->path().stem().string();
    if (!library_file(library_path, name).empty()) packs.push_back(std::move(name));
  }
  std::sort(packs.begin(), packs.end());
  return packs;
}

std::string place_text(const SourceSet& sources, Span span) {
  const Position position = sources.position(span.source, span.begin);
  return sources.at(span.source).path + ":" + std::to_string(position.line) + ":" + std::to_string(position.column);
}

FileText read_rule_file(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return {std::nullopt, "there is no such file"};
  if (fs::is_directory(path, error)) return {std::nullopt, "it is a folder"};
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return {std::nullopt, "it cannot be opened for reading"};
  // A pipe or a device tells no size beforehand.
  std::string text(kMaxRuleFileBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) return {std::nullopt, "it cannot be read"};
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() > kMaxRuleFileBytes) return {std::nullopt, "it is too large to be a rule file"};
  return {std::move(text), ""};
}

}  // namespace proviso::dsl

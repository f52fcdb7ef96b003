#pragma once

#include <compare>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dsl/ast.hpp"
#include "dsl/check.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

/// What a name can stand for. Each kind has its names to itself: a check may be called after its rule.
enum class SymbolKind { prompts, feature, rule, edit, circuit, check };
std::string_view kind_name(SymbolKind kind);  ///< "feature"

/// A declaration: its place among the modules.
struct Symbol {
  std::size_t module = 0;
  std::size_t declaration = 0;
  bool operator==(const Symbol&) const = default;
};

/// One rule file, with every name that it can use.
struct Module {
  ast::File file;
  std::string folder;          ///< what its paths are relative to
  std::string qualifier;       ///< "pack." where a first `use … as pack` brings it, else ""
  bool given = false;          ///< on the command line; otherwise only used
  bool complete = true;        ///< no sentence was lost to an error
  bool lost_use = false;       ///< a file that it uses could not be read, so an unknown name may be one of that
  std::set<std::string> lost;  ///< names of declarations that were lost to errors
  std::map<std::pair<SymbolKind, std::string>, Symbol> scope;  ///< "anger", "pack.anger"
};

/// The kind and name of a declaration that others can name.
std::optional<std::pair<SymbolKind, ast::Name>> named(const ast::Declaration& declaration);

/// Parses the given files and all that they use: the given ones first, in order. Names brought by `use` are those
/// that the used file declares itself.
std::vector<Module> resolve(SourceSet& sources, const std::vector<SourceId>& given, const LoadOptions& options,
                            std::vector<Diagnostic>& diagnostics);

/// The names that `use std/NAME` can take, sorted.
std::vector<std::string> library_packs(const std::string& library_path);
/// The file of one, or "": LIBRARY/gender/gender.proviso (a folder a subject), or LIBRARY/gender.proviso.
std::string library_file(const std::string& library_path, const std::string& name);

/// "a.proviso:3:7"
std::string place_text(const SourceSet& sources, Span span);

/// The text of a file of rules, or why it cannot be read.
struct FileText {
  std::optional<std::string> text;
  std::string problem;
};
FileText read_rule_file(const std::string& path);

}  // namespace proviso::dsl

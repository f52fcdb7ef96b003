#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dsl/check.hpp"
#include "dsl/resolve.hpp"
#include "lsp/document.hpp"
#include "lsp/occurrences.hpp"

namespace proviso::lsp {

/// A text that an editor holds; what is on the disk under its name does not count.
struct OpenDocument {
  std::string uri;
  std::int64_t version = 0;
  Text text;
};

/// One rule file as `proviso check` would be given it, with what it uses.
struct Analysis {
  dsl::SourceSet sources;
  dsl::SourceId root = 0;
  std::vector<dsl::Module> modules;  ///< the first is the file itself
  std::vector<dsl::Diagnostic> diagnostics;
  std::shared_ptr<const dsl::CheckedParts> parts;  ///< what is sound of it
  std::shared_ptr<const dsl::RuleSet> rules;       ///< null where there is an error
  std::vector<Occurrence> found;                   ///< in the file itself

  const dsl::Module& module() const { return modules.front(); }
  /// What stands at a byte of the file: the innermost, a place right after it included.
  const Occurrence* at(std::size_t offset) const;
  /// The declaration that a name stands for: its module and place; nothing where none does.
  std::optional<dsl::Symbol> symbol(const Occurrence& occurrence) const;
};

/// A declaration as it is known beyond one analysis: by its file, kind and own name.
struct Declared {
  std::string file;  ///< identity
  dsl::SymbolKind kind = dsl::SymbolKind::prompts;
  std::string name;
  bool operator==(const Declared&) const = default;
};
Declared declared(const Analysis& analysis, const dsl::Symbol& symbol);

/// The documents that are open, and the rule files around them.
class Workspace {
 public:
  dsl::LoadOptions load;
  std::vector<std::string> folders;

  void open(const std::string& uri, std::int64_t version, std::string text);
  void change(const std::string& uri, std::int64_t version, const Json& changes);
  void close(const std::string& uri);
  /// Files on the disk have changed: nothing that was read counts any more.
  void forget();

  const OpenDocument* find(const std::string& uri) const;
  std::vector<std::string> uris() const;
  /// Of an open document or a file on the disk; null where neither is there. Kept until a text changes.
  std::shared_ptr<const Analysis> analysis(const std::string& path);
  /// The text of a source, which an analysis has read.
  std::shared_ptr<const Text> text(const dsl::SourceSet& sources, dsl::SourceId source) const;
  /// The paths of all rule files: those that are open, and those below the folders.
  std::vector<std::string> rule_files() const;

 private:
  std::map<std::string, OpenDocument> open_;  // by URI
  std::map<std::string, std::shared_ptr<const Analysis>> known_;
};

}  // namespace proviso::lsp

#pragma once

#include <string>
#include <vector>

#include "dsl/ast.hpp"
#include "dsl/resolve.hpp"
#include "dsl/vocabulary.hpp"

namespace proviso::lsp {

/// What stands at a place of a rule file that was read: a name, a site, a call, a path.
struct Occurrence {
  enum class Role {
    declaration,  ///< of `symbol`
    reference,    ///< to `symbol`, which need not exist
    call,         ///< of `term`: a metric, constructor, method or sweep
    label,        ///< of an argument
    site,
    path,     ///< of a file
    library,  ///< `std/NAME`
    alias,    ///< `pack` of `as pack`
  };
  Role role = Role::reference;
  dsl::Span span;
  std::string text;
  dsl::SymbolKind symbol = dsl::SymbolKind::prompts;
  const dsl::Term* term = nullptr;
};

/// All of a module's own file, in the order of the text.
std::vector<Occurrence> occurrences(const dsl::Module& module);

/// The kind of thing that a parameter takes by name: prompts for "P", a feature for "F > NUMBER".
std::optional<dsl::SymbolKind> kind_taken(const std::string& takes);

}  // namespace proviso::lsp

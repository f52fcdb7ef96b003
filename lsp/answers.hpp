#pragma once

// What the server answers about one document: each a function of its analysis and a place in it. The JSON is the
// protocol's (LSP 3.17).

#include <cstddef>
#include <string>
#include <vector>

#include "lsp/document.hpp"
#include "lsp/model_view.hpp"
#include "lsp/workspace.hpp"

namespace proviso::lsp {

/// The protocol's diagnostic of ours, with related places and, in `data`, its fixes.
Json diagnostic_json(const dsl::Diagnostic& diagnostic, const dsl::SourceSet& sources, const Text& text);

/// Null where there is nothing to tell. `model` may be null.
Json hover(const Analysis& analysis, const Text& text, std::size_t offset, const ModelView* model);

Json completion(const Analysis& analysis, const Text& text, std::size_t offset, const std::string& library,
                const ModelView* model);

Json document_symbols(const Analysis& analysis, const Text& text);

/// The declarations' kinds in the order of the protocol's numbers: `semanticTokensProvider.legend`.
Json semantic_legend();
Json semantic_tokens(const Analysis& analysis, const Text& text);

/// Fixes of what stands in a range, and all safe ones together.
Json code_actions(const Analysis& analysis, const std::vector<dsl::Diagnostic>& of_model, const Text& text,
                  const std::string& uri, std::size_t begin, std::size_t end);

/// The edits that bring a file to the canonical style: none where it has errors, or has it already.
Json formatting(const Analysis& analysis, const Text& text);

/// Where what stands here is declared, or the file that it names; null where it is nowhere.
Json definition(const Analysis& analysis, std::size_t offset, const std::vector<std::string>& allowed_paths);
Json references(Workspace& workspace, const Analysis& analysis, std::size_t offset, bool with_declaration);

/// The part of a name that a rename changes, or null.
Json prepare_rename(const Analysis& analysis, const Text& text, std::size_t offset);
/// A workspace edit, or why there is none.
struct Renamed {
  Json edit;
  std::string refused;
};
Renamed rename(Workspace& workspace, const Analysis& analysis, std::size_t offset, const std::string& name);

}  // namespace proviso::lsp

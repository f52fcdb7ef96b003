#pragma once

#include <string>
#include <variant>
#include <vector>

#include "dsl/ast.hpp"
#include "dsl/diagnostic.hpp"

namespace proviso::dsl {

/// The folder that a rule file's paths are relative to: "rules" for "rules/a.proviso", "." for "a.proviso".
std::string folder_of(const std::string& path);

/// What identifies a file however it is named: absolute, symlinks and `..` resolved as far as they exist.
std::string file_identity(const std::string& path);

/// `path`, written in a rule file in `folder`, as it may be opened; or why not: once symlinks and `..` are
/// resolved it lies neither under `folder` nor under one of `allowed`.
std::variant<std::string, Diagnostic> open_path(const std::string& folder, const ast::String& path,
                                                const std::vector<std::string>& allowed);

}  // namespace proviso::dsl

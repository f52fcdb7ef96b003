#pragma once

#include <string>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

struct RenderOptions {
  bool color = false;  ///< for a terminal
};

/// Diagnostics for people, in the order of files and places:
///
///   capitals.proviso:19:42: error[read-after-intervention]: feature `anger` is read at …
///      19 |   suppress gender at resid_post[12] when anger > 0.5
///         |                                          ^^^^^
///      help: move the intervention to resid_post[18] or later
std::string render_text(const std::vector<Diagnostic>& diagnostics, const SourceSet& sources,
                        RenderOptions options = {});

/// The same for editors: an array of {file, severity, code, message, help, span: {begin, end}, fixes, related}, where
/// `begin` and `end` are {offset, line, column}, offsets in bytes from 0, lines and columns from 1; a fix is
/// {replacement, safe, span} in the same file, and a related place {file, message, span}.
std::string render_json(const std::vector<Diagnostic>& diagnostics, const SourceSet& sources);

/// "3 errors, 1 warning", or "" where there is neither.
std::string summary_text(const std::vector<Diagnostic>& diagnostics);

}  // namespace proviso::dsl

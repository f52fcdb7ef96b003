#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dsl/source.hpp"

namespace proviso::dsl {

/// Every situation that a user's text can be in. The list, with the explanation that
/// `proviso check --explain CODE` prints, lives once: in `diagnostic_codes.def`.
enum class Code {
#define PROVISO_DIAGNOSTIC(name, slug, severity, explanation) name,
#include "dsl/diagnostic_codes.def"
#undef PROVISO_DIAGNOSTIC
};

enum class Severity { error, warning };

std::string_view slug(Code code);  ///< "read-after-intervention"
Severity default_severity(Code code);
std::string_view explanation(Code code);  ///< a paragraph and an example, for `--explain`
std::optional<Code> code_from_slug(std::string_view text);

/// What was found, where, and what to do about it.
struct Diagnostic {
  Code code;
  Span span;
  std::string message;            ///< one sentence without a full stop: "feature `anger` is …"
  std::vector<std::string> help;  ///< one cure a line
  Severity severity = Severity::error;
};

Diagnostic make_diagnostic(Code code, Span span, std::string message, std::vector<std::string> help = {});

bool has_errors(const std::vector<Diagnostic>& diagnostics);

/// A stage's answer to a user's text: a value, or what is wrong with it, or both (warnings).
/// `value` is empty exactly where `diagnostics` holds an error.
template <class T>
struct Outcome {
  std::optional<T> value;
  std::vector<Diagnostic> diagnostics;

  explicit operator bool() const { return value.has_value(); }
};

/// The nearest of `candidates` to a misspelt `name` (Damerau-Levenshtein distance at most a third of
/// its length, at least 1), or nothing.
std::optional<std::string> nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace proviso::dsl

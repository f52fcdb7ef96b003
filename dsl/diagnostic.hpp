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

/// A change of the text that cures what was found: what stands at `span` becomes `replacement`.
struct Fix {
  Span span;
  std::string replacement;
  /// Nothing else can have been meant, so `check --fix` makes the change unasked; others an editor only offers.
  bool safe = true;
};

/// Another place that has to do with what was found: "the first declaration".
struct Related {
  Span span;
  std::string message;
};

/// What was found, where, and what to do about it.
struct Diagnostic {
  Code code;
  Span span;
  std::string message;            ///< one sentence without a full stop: "feature `anger` is …"
  std::vector<std::string> help;  ///< one cure a line
  Severity severity = Severity::error;
  std::vector<Fix> fixes = {};        ///< alternatives, the likeliest first
  std::vector<Related> related = {};  ///< where else to look
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

/// The misspelt `name` at `span` as the nearest of `candidates`, or nothing. It is safe where no other candidate comes
/// as near, unless the two differ in their digits alone: `plain_1` and `plain_2` are two names rather than one
/// misspelt.
std::vector<Fix> spelling_fix(Span span, std::string_view name, const std::vector<std::string>& candidates);

}  // namespace proviso::dsl

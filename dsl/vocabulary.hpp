#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace proviso::dsl {

enum class TermKind { declaration, statement, word, site, constructor, metric, method, attribution, sweep, attack };
std::string_view kind_name(TermKind kind);  ///< "metric"

/// A word of the language, with what an editor says about it.
struct Term {
  TermKind kind;
  std::string_view name;
  std::string_view usage;    ///< "rate(P, generates: REGEX, …)"; the letters are those of `vocabulary.def`
  std::string_view meaning;  ///< a phrase without a full stop
};

std::span<const Term> vocabulary();
const Term* find_term(TermKind kind, std::string_view name);  ///< null where there is none

/// One parameter of a call: `after` and `P` of `after: P`; the label is "" for what is given by place.
struct TermParameter {
  std::string label;
  std::string takes;
};
/// The parameters of a term that is called: those of its usage and, of an edit's method, those of `edit_methods.def`.
std::vector<TermParameter> parameters(const Term& term);

/// The words that open a statement in a declaration: "expect", "under", … of `check`, and those of any declaration. Of
/// "from" they are the options of a file.
std::vector<std::string> statements_of(std::string_view declaration);

/// Whether the language keeps a word for itself, so that it cannot be a name.
bool is_reserved(std::string_view word);

/// Every word of the grammar, reserved or not.
std::span<const std::string_view> grammar_words();

}  // namespace proviso::dsl

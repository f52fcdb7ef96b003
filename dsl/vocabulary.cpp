#include "dsl/vocabulary.hpp"

#include <algorithm>

#include "dsl/messages.hpp"

namespace proviso::dsl {
namespace {

// clang-format off
constexpr Term kTerms[] = {
#define PROVISO_TERM(kind, name, usage, meaning) {TermKind::kind, #name, usage, meaning},
#include "dsl/vocabulary.def"
#undef PROVISO_TERM
};
// clang-format on

constexpr std::string_view kReserved[] = {
#define PROVISO_WORD(word, opens) #word,
#include "dsl/words.def"
};

constexpr std::string_view kGrammarWords[] = {
#define PROVISO_WORD(word, opens) #word,
#define PROVISO_PHRASE_WORD(word) #word,
#include "dsl/words.def"
};

struct MethodParameter {
  std::string_view method, name, takes;
};
constexpr MethodParameter kMethodParameters[] = {
#define PROVISO_METHOD_NUMBER(method, parameter, low, high, whole) {#method, #parameter, "NUMBER"},
#define PROVISO_METHOD_PATH(method, parameter) {#method, #parameter, "FILE"},
#define PROVISO_METHOD_LAYERS(method, parameter) {#method, #parameter, "LAYERS"},
#include "dsl/edit_methods.def"
#define PROVISO_METHOD_NUMBER(method, parameter, low, high, whole) {#method, #parameter, "NUMBER"},
#define PROVISO_METHOD_WORD(method, parameter, first, second) {#method, #parameter, #first "|" #second},
#include "dsl/edit_parameters.def"
};

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(' ') - begin + 1));
}

}  // namespace

std::string_view kind_name(TermKind kind) {
  switch (kind) {
    case TermKind::declaration:
      return "declaration";
    case TermKind::statement:
      return "statement";
    case TermKind::word:
      return "word";
    case TermKind::site:
      return "site";
    case TermKind::constructor:
      return "constructor";
    case TermKind::metric:
      return "metric";
    case TermKind::method:
      return "method";
    case TermKind::attribution:
      return "attribution method";
    case TermKind::attack:
      return "attack";
    case TermKind::sweep:
      return "sweep";
  }
  return "";
}

std::span<const Term> vocabulary() { return kTerms; }

const Term* find_term(TermKind kind, std::string_view name) {
  const auto found = std::find_if(std::begin(kTerms), std::end(kTerms),
                                  [&](const Term& term) { return term.kind == kind && term.name == name; });
  return found == std::end(kTerms) ? nullptr : found;
}

std::vector<TermParameter> parameters(const Term& term) {
  std::vector<TermParameter> found;
  const std::size_t open = term.usage.find('(');
  const bool is_call = term.usage.starts_with(term.name) && open == term.name.size();
  std::string_view rest = is_call ? term.usage.substr(open + 1, term.usage.rfind(')') - open - 1) : std::string_view();
  while (!rest.empty()) {
    std::size_t end = 0;
    for (int depth = 0; end < rest.size() && (depth > 0 || rest[end] != ','); ++end) {
      depth += (rest[end] == '(') - (rest[end] == ')');
    }
    const std::string_view one = rest.substr(0, end);
    const std::size_t colon = one.find(':');
    const bool labelled = colon != std::string_view::npos;
    found.push_back({labelled ? trimmed(one.substr(0, colon)) : "", trimmed(labelled ? one.substr(colon + 1) : one)});
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (term.kind == TermKind::method) {
    for (const MethodParameter& each : kMethodParameters) {
      if (each.method == term.name) found.push_back({std::string(each.name), std::string(each.takes)});
    }
  }
  return found;
}

std::vector<std::string> statements_of(std::string_view declaration) {
  std::vector<std::string> words;
  const auto add = [&](std::string_view list) {
    while (!list.empty()) {
      const std::size_t end = std::min(list.find(' '), list.size());
      words.emplace_back(list.substr(0, end));
      list.remove_prefix(std::min(end + 1, list.size()));
    }
  };
  if (declaration == "rule") add(grammar::expected<grammar::rule_close>.statements);
  if (declaration == "edit") add(grammar::expected<grammar::edit_close>.statements);
  if (declaration == "circuit") add(grammar::expected<grammar::circuit_close>.statements);
  if (declaration == "check") add(grammar::expected<grammar::check_close>.statements);
  if (declaration == "model") add(grammar::expected<grammar::model_close>.statements);
  if (declaration == "from") add(grammar::expected<grammar::file_close>.statements);
  add(kNotes);
  return words;
}

bool is_reserved(std::string_view word) {
  return std::find(std::begin(kReserved), std::end(kReserved), word) != std::end(kReserved);
}

std::span<const std::string_view> grammar_words() { return kGrammarWords; }

}  // namespace proviso::dsl

// editors/vscode colours by a grammar of its own, which must know the language's words.

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>

#include "dsl/vocabulary.hpp"

namespace proviso::dsl {
namespace {

void collect(const nlohmann::json& node, std::set<std::string>& expressions) {
  if (node.is_object()) {
    for (const auto& [key, value] : node.items()) {
      if (value.is_string() && (key == "match" || key == "begin" || key == "end")) expressions.insert(value);
      collect(value, expressions);
    }
  } else if (node.is_array()) {
    for (const auto& item : node) collect(item, expressions);
  }
}

}  // namespace

TEST_CASE("the TextMate grammar can be read, and knows every word and site of the language") {
  std::ifstream file(PROVISO_SOURCE_DIR "/editors/vscode/syntaxes/proviso.tmLanguage.json");
  const auto grammar = nlohmann::json::parse(file);
  std::set<std::string> expressions;
  collect(grammar, expressions);
  CHECK(expressions.size() >= 15);
  for (const std::string& expression : expressions) {
    CAPTURE(expression);
    CHECK_NOTHROW(std::regex(expression));  // ECMAScript's syntax is part of Oniguruma's, which editors use
  }

  const auto& rules = grammar.at("repository");
  const auto knows = [&](const std::string& rule, std::string_view word) {
    const std::string expression = rules.at(rule).at("match");
    return std::regex_search(expression, std::regex("[(|:]" + std::string(word) + "[|)]"));
  };
  for (const std::string_view word : grammar_words()) {
    CAPTURE(word);
    CHECK((knows("keyword", word) || knows("operation", word) || knows("logic", word)));
  }
  for (const Term& term : vocabulary()) {
    CAPTURE(term.name);
    if (term.kind == TermKind::declaration) CHECK(knows("declaration", term.name));
    if (term.kind == TermKind::site) CHECK(knows("site", term.name));
  }
}

}  // namespace proviso::dsl

// The vocabulary, from which editors explain the language, knows every word that the language has.

#include "dsl/vocabulary.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <string>

#include "dsl/check.hpp"
#include "dsl/site.hpp"

namespace proviso::dsl {
namespace {

bool is_explained(std::string_view name) {
  return std::any_of(vocabulary().begin(), vocabulary().end(), [&](const Term& term) { return term.name == name; });
}

/// The names that the help of a diagnostic lists: "the metrics are accuracy, auroc, … and kl".
std::vector<std::string> listed_by(const std::string& rule_file, const std::string& opening) {
  SourceSet sources;
  sources.add("a.proviso", rule_file);
  for (const Diagnostic& diagnostic : check_sources(sources, {0}).diagnostics) {
    for (const std::string& help : diagnostic.help) {
      if (!help.starts_with(opening)) continue;
      std::vector<std::string> names;
      std::string word;
      for (const char c : help.substr(opening.size()) + " ") {
        if (c != ' ' && c != ',') {
          word += c;
        } else if (!word.empty()) {
          if (word != "and") names.push_back(word);
          word.clear();
        }
      }
      return names;
    }
  }
  return {};
}

}  // namespace

TEST_CASE("the vocabulary explains every word of the grammar, every site, and every metric, constructor and method") {
  for (const std::string_view word : grammar_words()) {
    CAPTURE(word);
    CHECK(is_explained(word));
  }
#define PROVISO_SITE(name, layered, heads, width) CHECK(find_term(TermKind::site, #name) != nullptr);
#include "dsl/sites.def"
#undef PROVISO_SITE
#define PROVISO_ATTACK(kind) CHECK(find_term(TermKind::attack, #kind) != nullptr);
#include "dsl/attacks.def"

  const auto metrics = listed_by("check c { expect zzzzzzzzzzzz(p) >= 1 }", "the metrics are ");
  const auto constructors = listed_by("feature f = zzzzzzzzzzzz(p) at embed", "features are built by ");
  const auto methods = listed_by("edit e { fact \"a\" in \"{} b\" to \"c\" using zzzzzzzzzzzz }", "the methods are ");
  CHECK(metrics.size() >= 20);
  CHECK(constructors.size() >= 6);
  CHECK(methods.size() >= 6);
  for (const auto& name : metrics) CHECK((find_term(TermKind::metric, name) != nullptr));
  for (const auto& name : constructors) CHECK((find_term(TermKind::constructor, name) != nullptr));
  for (const auto& name : methods) CHECK((find_term(TermKind::method, name) != nullptr));
}

TEST_CASE("every statement that a declaration can hold is explained as one") {
  for (const std::string declaration : {"rule", "edit", "circuit", "check", "model", "from"}) {
    for (const std::string& word : statements_of(declaration)) {
      CAPTURE(declaration, word);
      CHECK(find_term(TermKind::statement, word) != nullptr);
    }
  }
}

TEST_CASE("no term stands twice") {
  std::set<std::pair<TermKind, std::string_view>> seen;
  for (const Term& term : vocabulary()) {
    CAPTURE(term.name);
    CHECK(seen.emplace(term.kind, term.name).second);
    CHECK_FALSE(term.meaning.ends_with("."));
  }
}

TEST_CASE("a call's parameters are read off its usage, and off the table of methods") {
  const auto rate = parameters(*find_term(TermKind::metric, "rate"));
  REQUIRE(rate.size() == 5);
  CHECK(rate[0].label.empty());
  CHECK(rate[0].takes == "P");
  CHECK(rate[1].label == "generates");
  const auto rome = parameters(*find_term(TermKind::method, "rome"));
  const auto variant =
      std::find_if(rome.begin(), rome.end(), [](const TermParameter& each) { return each.label == "variant"; });
  REQUIRE(variant != rome.end());
  CHECK(variant->takes == "averaged|original");
  CHECK(std::any_of(rome.begin(), rome.end(), [](const TermParameter& each) { return each.label == "ridge"; }));
  CHECK(parameters(*find_term(TermKind::metric, "efficacy")).empty());
}

}  // namespace proviso::dsl

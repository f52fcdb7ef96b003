// What a document holds, as an outline and as colours.

#include <algorithm>
#include <array>

#include "dsl/format.hpp"
#include "dsl/vocabulary.hpp"
#include "lsp/answers.hpp"
#include "lsp/tokens.hpp"

namespace proviso::lsp {
namespace {

using dsl::SymbolKind;

// SymbolKind of the protocol
constexpr int kModule = 2, kClass = 5, kMethod = 6, kProperty = 7, kFunction = 12, kArray = 18, kObject = 19,
              kEvent = 24;

Json child(const Text& text, std::string name, int kind, dsl::Span span) {
  const Json range = text.range(span);
  return {{"name", std::move(name)}, {"kind", kind}, {"range", range}, {"selectionRange", range}};
}

struct Outlined {
  const Text& text;
  Json children = Json::array();
  int kind = kObject;

  void operator()(const dsl::ast::Rule& rule) {
    kind = kClass;
    for (const auto& each : rule.interventions) {
      children.push_back(child(text, dsl::canonical_text(each), kMethod, each.span));
    }
  }
  void operator()(const dsl::ast::Edit& edit) {
    kind = kClass;
    for (const auto& each : edit.expectations) {
      children.push_back(child(text, dsl::canonical_text(each), kEvent, each.span));
    }
  }
  void operator()(const dsl::ast::Check& check) {
    kind = kFunction;
    for (const auto& each : check.expectations) {
      children.push_back(child(text, dsl::canonical_text(each), kEvent, each.span));
    }
  }
  void operator()(const dsl::ast::Prompts&) { kind = kArray; }
  void operator()(const dsl::ast::Feature&) { kind = kProperty; }
  void operator()(const dsl::ast::Use&) { kind = kModule; }
  void operator()(const dsl::ast::Model&) {}
  void operator()(const dsl::ast::Circuit&) { kind = kClass; }
  void operator()(const dsl::ast::Waive&) {}
};

constexpr std::array<const char*, 14> kTypes = {"comment",  "string",    "regexp",    "number",    "keyword",
                                                "operator", "variable",  "property",  "class",     "function",
                                                "type",     "parameter", "namespace", "enumMember"};
constexpr std::array<const char*, 2> kModifiers = {"declaration", "deprecated"};

int type_index(std::string_view name) {
  return static_cast<int>(std::find(kTypes.begin(), kTypes.end(), name) - kTypes.begin());
}

std::string_view type_of(const Occurrence& each) {
  switch (each.role) {
    case Occurrence::Role::declaration:
    case Occurrence::Role::reference:
      if (each.symbol == SymbolKind::prompts) return "variable";
      return each.symbol == SymbolKind::feature ? "property" : "class";
    case Occurrence::Role::call:
      return "function";
    case Occurrence::Role::label:
      return "parameter";
    case Occurrence::Role::site:
      return "type";
    case Occurrence::Role::library:
    case Occurrence::Role::alias:
      return "namespace";
    case Occurrence::Role::path:
      return "string";
  }
  return "";
}

std::string_view type_of(const Token& token, std::string_view text) {
  switch (token.kind) {
    case Token::Kind::comment:
      return "comment";
    case Token::Kind::string:
      return "string";
    case Token::Kind::regex:
      return "regexp";
    case Token::Kind::number:
      return "number";
    case Token::Kind::word: {
      const auto words = dsl::grammar_words();
      return std::find(words.begin(), words.end(), token.of(text)) != words.end() ? "keyword" : "";
    }
    case Token::Kind::symbol:
      return std::string_view("-> < <= > >= == != =").find(token.of(text)) != std::string_view::npos ? "operator" : "";
  }
  return "";
}

bool is_deprecated(const Analysis& analysis, const Occurrence& occurrence) {
  const auto symbol = analysis.symbol(occurrence);
  if (!symbol) return false;
  return std::visit(
      [](const auto& node) {
        return node.notes.status && node.notes.status->value == dsl::Annotations::Status::deprecated;
      },
      analysis.modules[symbol->module].file.declarations[symbol->declaration]);
}

}  // namespace

Json document_symbols(const Analysis& analysis, const Text& text) {
  Json all = Json::array();
  for (const dsl::ast::Declaration& declaration : analysis.module().file.declarations) {
    Outlined outlined{text};
    std::visit([&](const auto& node) { outlined(node); }, declaration);
    const dsl::Span whole = dsl::ast::span_of(declaration);
    const auto name = dsl::named(declaration);
    std::string shown;
    dsl::Span selected = whole;
    std::string detail;
    if (name) {
      shown = name->second.text;
      selected = name->second.span;
      detail = dsl::kind_name(name->first);
    } else {
      // `use "file"`, `model {`, `waive NAME`: the first line tells
      const std::string_view written = analysis.sources.text(whole);
      shown = std::string(written.substr(0, std::min(written.find_first_of("{\n"), written.size())));
      while (shown.ends_with(' ') || shown.ends_with('\r')) shown.pop_back();
    }
    all.push_back({{"name", shown},
                   {"detail", detail},
                   {"kind", outlined.kind},
                   {"range", text.range(whole)},
                   {"selectionRange", text.range(selected)},
                   {"children", std::move(outlined.children)}});
  }
  return all;
}

Json semantic_legend() { return {{"tokenTypes", kTypes}, {"tokenModifiers", kModifiers}}; }

Json semantic_tokens(const Analysis& analysis, const Text& text) {
  Json data = Json::array();
  std::size_t last_line = 0, last_character = 0;
  const auto add = [&](std::size_t begin, std::size_t end, std::string_view type, int modifiers) {
    if (type.empty()) return;
    const Json from = text.position(begin), to = text.position(end);
    const auto line = from["line"].get<std::size_t>(), character = from["character"].get<std::size_t>();
    data.push_back(line - last_line);
    data.push_back(line == last_line ? character - last_character : character);
    data.push_back(to["character"].get<std::size_t>() - character);
    data.push_back(type_index(type));
    data.push_back(modifiers);
    last_line = line;
    last_character = character;
  };
  auto name = analysis.found.begin();
  std::size_t done = 0;
  for (const Token& token : tokens(text.str())) {
    if (token.begin < done) continue;
    while (name != analysis.found.end() && name->span.begin < token.begin) ++name;
    if (name == analysis.found.end() || name->span.begin != token.begin) {
      add(token.begin, token.end, type_of(token, text.str()), 0);
      continue;
    }
    // A site's brackets and heads are coloured as what they are.
    const std::size_t end = name->role == Occurrence::Role::site ? token.end : name->span.end;
    const int modifiers =
        (name->role == Occurrence::Role::declaration ? 1 : 0) + (is_deprecated(analysis, *name) ? 2 : 0);
    add(token.begin, end, type_of(*name), modifiers);
    done = end;
  }
  return {{"data", std::move(data)}};
}

}  // namespace proviso::lsp

#include <algorithm>

#include "dsl/vocabulary.hpp"
#include "lsp/answers.hpp"
#include "lsp/tokens.hpp"

namespace proviso::lsp {
namespace {

using dsl::TermKind;

Json markdown(const std::string& text, Json range) {
  return {{"contents", {{"kind", "markdown"}, {"value", text}}}, {"range", std::move(range)}};
}

std::string code(std::string_view text) { return "```proviso\n" + std::string(text) + "\n```\n"; }

std::string explained(const dsl::Term& term) {
  std::string text =
      code(term.usage) + std::string(dsl::kind_name(term.kind)) + ": " + std::string(term.meaning) + "\n";
  const auto known = dsl::parameters(term);
  if (term.kind == TermKind::method && !known.empty()) {
    text += "\nparameters:";
    for (const dsl::TermParameter& each : known) text += " `" + each.label + ": " + each.takes + "`";
    text += "\n";
  }
  return text;
}

std::string of_model(const ModelView& model, dsl::SiteKind kind) {
  const auto found = model.sites.find(kind);
  if (found == model.sites.end()) return "";
  const ModelView::SiteView& site = found->second;
  if (!site.missing.empty()) return "\nIn " + model.name + ": " + site.missing + "\n";
  std::string text = "\nIn " + model.name + ": ";
  text += site.width > 0 ? "width " + std::to_string(site.width) : "as wide as the text is long";
  if (site.heads > 0) text += ", " + std::to_string(site.heads) + " heads";
  if (dsl::site_has_layer(kind)) text += ", layers 0 to " + std::to_string(model.layers - 1);
  return text + "\n";
}

std::string of_declaration(const Analysis& analysis, const dsl::Symbol& symbol, const ModelView* model) {
  const dsl::Module& home = analysis.modules[symbol.module];
  const dsl::ast::Declaration& declaration = home.file.declarations[symbol.declaration];
  constexpr std::size_t kLongest = 1500;
  std::string written(analysis.sources.text(dsl::ast::span_of(declaration)));
  if (written.size() > kLongest) {
    std::size_t cut = written.rfind('\n', kLongest);
    if (cut == std::string::npos || cut == 0) {
      cut = kLongest;
      while (cut > 0 && (static_cast<unsigned char>(written[cut]) & 0xC0) == 0x80) --cut;
    }
    written.resize(cut);
    written += "\n…";
  }
  std::string text = code(written);
  std::visit(
      [&](const auto& node) {
        const dsl::ast::Notes& notes = node.notes;
        if (notes.title) text += "**" + notes.title->value + "**\n\n";
        if (notes.description) text += notes.description->text.value + "\n\n";
        if (notes.status && notes.status->value != dsl::Annotations::Status::stable) {
          text += notes.status->value == dsl::Annotations::Status::deprecated ? "deprecated\n\n" : "experimental\n\n";
        }
      },
      declaration);
  if (const auto* prompts = std::get_if<dsl::ast::Prompts>(&declaration)) {
    if (const auto* list = std::get_if<dsl::ast::PromptList>(&prompts->source)) {
      text += std::to_string(list->items.size()) + (list->items.size() == 1 ? " prompt\n" : " prompts\n");
    } else if (const auto* each = std::get_if<dsl::ast::Each>(&prompts->source)) {
      std::size_t count = 1;
      for (const auto& binding : each->bindings) count *= binding.values.size();
      text += std::to_string(count) + " prompts\n";
    }
  }
  const auto* feature = std::get_if<dsl::ast::Feature>(&declaration);
  if (feature != nullptr && feature->site && model != nullptr) text += of_model(*model, feature->site->kind);
  if (feature != nullptr && model != nullptr && analysis.rules) {
    text += "\n" + model->calibration(analysis.rules, home.qualifier + feature->name.text) + "\n";
  }
  return text + "\ndeclared at " + dsl::place_text(analysis.sources, dsl::named(declaration)->second.span) + "\n";
}

/// What a word means where it stands in no sentence that was read: the likeliest of its meanings.
const dsl::Term* any_term(std::string_view word) {
  for (const TermKind kind :
       {TermKind::statement, TermKind::word, TermKind::declaration, TermKind::site, TermKind::metric,
        TermKind::constructor, TermKind::method, TermKind::attribution, TermKind::sweep, TermKind::attack}) {
    if (const dsl::Term* term = dsl::find_term(kind, word)) return term;
  }
  return nullptr;
}

std::string of_parameter(const dsl::Term& term, const std::string& label) {
  for (const dsl::TermParameter& each : dsl::parameters(term)) {
    if (each.label == label) return code(each.label + ": " + each.takes) + "of `" + std::string(term.usage) + "`\n";
  }
  return "";
}

}  // namespace

Json hover(const Analysis& analysis, const Text& text, std::size_t offset, const ModelView* model) {
  const Occurrence* here = analysis.at(offset);
  if (here != nullptr) {
    const Json range = text.range(here->span);
    if (const auto symbol = analysis.symbol(*here)) return markdown(of_declaration(analysis, *symbol, model), range);
    if (here->role == Occurrence::Role::site && here->term != nullptr) {
      std::string shown = explained(*here->term);
      if (model != nullptr) shown += of_model(*model, *dsl::site_from_name(here->text));
      return markdown(shown, range);
    }
    if (here->role == Occurrence::Role::label && here->term != nullptr) {
      const std::string shown = of_parameter(*here->term, here->text);
      return shown.empty() ? Json() : markdown(shown, range);
    }
    if (here->role == Occurrence::Role::call && here->term != nullptr) return markdown(explained(*here->term), range);
    if (here->role != Occurrence::Role::call) return {};
  }
  const auto all = tokens(text.str());
  for (const Token& token : all) {
    if (token.kind != Token::Kind::word || token.begin > offset || token.end < offset) continue;
    const dsl::Term* term = opens_declaration(text.str(), token)
                                ? dsl::find_term(TermKind::declaration, token.of(text.str()))
                                : any_term(token.of(text.str()));
    if (term == nullptr) continue;
    std::string shown = explained(*term);
    if (model != nullptr && term->kind == TermKind::site) shown += of_model(*model, *dsl::site_from_name(term->name));
    return markdown(shown, text.range(token.begin, token.end));
  }
  return {};
}

}  // namespace proviso::lsp

#include "lsp/occurrences.hpp"

#include <algorithm>
#include <utility>

namespace proviso::lsp {
namespace {

using dsl::SymbolKind;
using dsl::TermKind;
namespace ast = dsl::ast;

class Collector {
 public:
  explicit Collector(const dsl::Module& module) : module_(module) {}

  std::vector<Occurrence> run() {
    for (const ast::Declaration& declaration : module_.file.declarations) {
      if (const auto name = dsl::named(declaration)) {
        found_.push_back({Occurrence::Role::declaration, name->second.span, name->second.text, name->first, nullptr});
      }
      std::visit(*this, declaration);
    }
    std::stable_sort(found_.begin(), found_.end(),
                     [](const Occurrence& a, const Occurrence& b) { return a.span.begin < b.span.begin; });
    return std::move(found_);
  }

  // ---- declarations ----
  void operator()(const ast::Use& use) {
    if (const auto* file = std::get_if<ast::String>(&use.what)) add(Occurrence::Role::path, file->span, file->value);
    if (const auto* library = std::get_if<ast::LibraryName>(&use.what)) {
      add(Occurrence::Role::library, library->span, library->name);
    }
    if (use.alias) add(Occurrence::Role::alias, use.alias->span, use.alias->text);
  }
  void operator()(const ast::Model&) {}
  void operator()(const ast::Prompts& prompts) {
    if (const auto* file = std::get_if<ast::FromFile>(&prompts.source)) path(file->path);
  }
  void operator()(const ast::Feature& feature) {
    call(feature.constructor, TermKind::constructor);
    if (feature.site) site(*feature.site);
    if (feature.select && feature.select->on) {
      prompts_ref(feature.select->on->first);
      prompts_ref(feature.select->on->second);
    }
  }
  void operator()(const ast::Rule& rule) {
    for (const ast::Intervention& each : rule.interventions) intervention(each);
    for (const ast::Example& example : rule.examples) {
      for (const ast::PromptsRef& prompts : example.prompts) prompts_ref(prompts);
    }
  }
  void operator()(const ast::Edit& edit) {
    for (const auto& change : edit.changes) std::visit([this](const auto& each) { this->change(each); }, change);
    if (edit.method) call(edit.method->method, TermKind::method);
    for (const ast::Expectation& each : edit.expectations) expectation(each);
  }
  void operator()(const ast::Circuit& circuit) {
    for (const ast::Pair& pair : circuit.pairs) {
      for (const auto* side : {&pair.clean, &pair.corrupt}) {
        if (const auto* name = std::get_if<ast::Name>(side)) reference(*name, SymbolKind::prompts);
      }
    }
    if (circuit.measure) call(circuit.measure->metric, TermKind::metric);
    if (circuit.method) call(circuit.method->method, TermKind::attribution);
  }
  void operator()(const ast::Check& check) {
    for (const ast::Under& under : check.under) {
      for (const ast::Call& attack : under.attacks) call(attack, TermKind::attack);
      for (const ast::Name& name : under.names) {
        reference(name, under.kind == ast::Under::Kind::rule ? SymbolKind::rule : SymbolKind::edit);
      }
    }
    for (const ast::Expectation& each : check.expectations) expectation(each);
  }
  void operator()(const ast::Waive& waive) { reference(waive.check, SymbolKind::check); }

  // ---- conditions ----
  void operator()(const ast::Comparison& comparison) {
    operand(comparison.left);
    for (const ast::Comparison::Link& link : comparison.links) operand(link.right);
  }
  void operator()(const ast::PromptMatches&) {}
  void operator()(const ast::TokenIn&) {}
  void operator()(const ast::Generated&) {}
  void operator()(const ast::Any& any) { condition(*any.of); }
  void operator()(const ast::Last& last) { condition(*last.of); }
  void operator()(const ast::Not& negation) { condition(*negation.of); }
  void operator()(const ast::And& all) {
    std::for_each(all.of.begin(), all.of.end(), [&](const auto& c) { condition(c); });
  }
  void operator()(const ast::Or& some) {
    std::for_each(some.of.begin(), some.of.end(), [&](const auto& c) { condition(c); });
  }

 private:
  void add(Occurrence::Role role, dsl::Span span, std::string text, const dsl::Term* term = nullptr) {
    found_.push_back({role, span, std::move(text), {}, term});
  }
  void reference(const ast::Name& name, SymbolKind kind) {
    found_.push_back({Occurrence::Role::reference, name.span, name.text, kind, nullptr});
  }
  void path(const ast::String& file) { add(Occurrence::Role::path, file.span, file.value); }
  void site(const ast::Site& site) {
    const std::string name(dsl::site_name(site.kind));
    add(Occurrence::Role::site, site.span, name, dsl::find_term(TermKind::site, name));
  }
  void prompts_ref(const ast::PromptsRef& prompts) {
    if (const auto* name = std::get_if<ast::Name>(&prompts)) reference(*name, SymbolKind::prompts);
  }

  void change(const ast::Fact&) {}
  void change(const ast::FactsFrom& facts) { path(facts.file.path); }
  void change(const ast::Remove& remove) {
    reference(remove.feature, remove.circuit ? SymbolKind::circuit : SymbolKind::feature);
    for (const ast::Site& each : remove.sites) site(each);
  }
  void change(const ast::Erase& erase) {
    if (const auto* labels = std::get_if<ast::PromptsRef>(&erase.labels)) {
      prompts_ref(*labels);
    } else {
      for (const ast::PromptsRef& each : std::get<std::vector<ast::PromptsRef>>(erase.labels)) prompts_ref(each);
    }
    for (const ast::Site& each : erase.sites) site(each);
  }

  void patch(const ast::Patch& node) {
    if (node.feature) reference(*node.feature, SymbolKind::feature);
    for (const ast::Site& each : node.sites) site(each);
    if (const auto* name = std::get_if<ast::Name>(&node.source);
        name != nullptr && module_.scope.contains({SymbolKind::prompts, name->text})) {
      reference(*name, SymbolKind::prompts);
    }
    if (const auto* mean = std::get_if<ast::Call>(&node.source)) {
      for (const ast::Argument& argument : mean->arguments) value(argument.value, "P");
    }
    if (node.condition) condition(**node.condition);
  }
  void intervention(const ast::Intervention& node) {
    reference(node.feature, node.circuit ? SymbolKind::circuit : SymbolKind::feature);
    for (const ast::Site& each : node.sites) site(each);
    if (node.condition) condition(**node.condition);
  }
  void condition(const ast::Condition& condition) { std::visit(*this, condition.node); }
  void operand(const ast::Operand& operand) {
    if (const auto* name = std::get_if<ast::Name>(&operand)) reference(*name, SymbolKind::feature);
    if (const auto* quantile = std::get_if<ast::Call>(&operand)) call(*quantile, TermKind::word);
  }
  void expectation(const ast::Expectation& expectation) {
    call(expectation.metric, TermKind::metric);
    for (const ast::Call& sweep : expectation.across) call(sweep, TermKind::sweep);
  }

  void call(const ast::Call& node, TermKind kind) {
    const dsl::Term* term = dsl::find_term(kind, node.name.text);
    add(Occurrence::Role::call, node.name.span, node.name.text, term);
    const auto known = term != nullptr ? dsl::parameters(*term) : std::vector<dsl::TermParameter>();
    std::size_t next = 0;
    for (const ast::Argument& argument : node.arguments) {
      std::string takes;
      if (argument.label) {
        add(Occurrence::Role::label, argument.label->span, argument.label->text, term);
        const auto named = std::find_if(known.begin(), known.end(), [&](const dsl::TermParameter& each) {
          return each.label == argument.label->text;
        });
        if (named != known.end()) takes = named->takes;
      } else {
        while (next < known.size() && !known[next].label.empty()) ++next;
        if (next < known.size()) takes = known[next++].takes;
      }
      value(argument.value, takes);
    }
  }

  void value(const ast::Value& value, const std::string& takes) {
    if (const auto* name = std::get_if<ast::Name>(&value)) return named_value(*name, takes);
    if (const auto* inner = std::get_if<ast::Call>(&value)) {
      return call(*inner, takes == "METRIC" ? TermKind::metric : TermKind::word, takes);
    }
    if (const auto* comparison = std::get_if<ast::Comparison>(&value)) return (*this)(*comparison);
    if (const auto* change = std::get_if<ast::Intervention>(&value)) return intervention(*change);
    if (const auto* change = std::get_if<ast::Patch>(&value)) return patch(*change);
    if (const auto* rule = std::get_if<ast::RuleRef>(&value)) return reference(rule->rule, SymbolKind::rule);
    if (const auto* edit = std::get_if<ast::EditRef>(&value)) return reference(edit->edit, SymbolKind::edit);
    if (const auto* file = std::get_if<ast::String>(&value); file != nullptr && takes == "FILE") path(*file);
  }
  /// `mean(N)` of `zero: midpoint|origin|mean(N)`: a call within a closed list of words takes prompts.
  void call(const ast::Call& node, TermKind kind, const std::string& takes) {
    if (takes.find('|') == std::string::npos) return call(node, kind);
    for (const ast::Argument& argument : node.arguments) value(argument.value, "P");
  }
  void named_value(const ast::Name& name, const std::string& takes) {
    if (takes.find('|') != std::string::npos) return;  // one of the language's own words
    if (const auto kind = kind_taken(takes)) return reference(name, *kind);
    for (const SymbolKind kind : {SymbolKind::prompts, SymbolKind::feature, SymbolKind::circuit}) {
      if (module_.scope.contains({kind, name.text})) return reference(name, kind);
    }
  }

  const dsl::Module& module_;
  std::vector<Occurrence> found_;
};

}  // namespace

std::vector<Occurrence> occurrences(const dsl::Module& module) { return Collector(module).run(); }

std::optional<SymbolKind> kind_taken(const std::string& takes) {
  if (takes == "P" || takes == "Q" || takes == "N") return SymbolKind::prompts;
  if (takes == "F" || takes == "G" || takes.starts_with("F ")) return SymbolKind::feature;
  if (takes == "C") return SymbolKind::circuit;
  return std::nullopt;
}

}  // namespace proviso::lsp

#include "dsl/check.hpp"

#include <algorithm>
#include <cctype>
#include <tuple>
#include <type_traits>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/paths.hpp"

namespace proviso::dsl {
namespace {

constexpr SymbolKind kKinds[] = {SymbolKind::prompts, SymbolKind::feature, SymbolKind::rule,
                                 SymbolKind::edit,    SymbolKind::circuit, SymbolKind::check};

std::string article(SymbolKind kind) {
  if (kind == SymbolKind::prompts) return "a set of prompts";
  return (kind == SymbolKind::edit ? "an " : "a ") + std::string(kind_name(kind));
}

Annotations annotations_of(const ast::Notes& notes) {
  Annotations annotations;
  if (notes.title) annotations.title = notes.title->value;
  if (notes.description) annotations.description = notes.description->text.value;
  if (notes.tags) {
    for (const ast::String& tag : notes.tags->values) annotations.tags.push_back(tag.value);
  }
  if (notes.meta) {
    for (const ast::MetaEntry& entry : notes.meta->entries) {
      annotations.meta.emplace_back(entry.key.text, entry.value.value);
    }
  }
  if (notes.status) annotations.status = notes.status->value;
  return annotations;
}

}  // namespace

Checker::Checker(const SourceSet& sources, const std::vector<Module>& modules, const LoadOptions& options)
    : sources_(sources), modules_(modules), options_(options) {}

CheckedParts Checker::run(std::vector<Diagnostic> diagnostics) {
  diagnostics_ = std::move(diagnostics);
  for (const Diagnostic& found : diagnostics_) {
    if (found.severity == Severity::error) misread_.push_back(found.span);
  }
  declare_all();
  // Each step reads only what those before it have defined.
  unsound_.prompts.merge(define_each(prompts_work_, &Checker::define_prompts));
  // A subspace reads the features that it is spanned by.
  std::stable_partition(feature_work_.begin(), feature_work_.end(),
                        [](const auto& work) { return work.node().constructor.name.text != "subspace"; });
  unsound_.features.merge(define_each(feature_work_, &Checker::define_feature));
  unsound_.circuits.merge(define_each(circuit_work_, &Checker::define_circuit));
  define_each(rule_work_, &Checker::define_rule);
  unsound_.edits.merge(define_each(edit_work_, &Checker::define_edit));
  define_each(check_work_, &Checker::define_check);
  for (const Module& module : modules_) {
    module_ = &module;
    if (!module.given) continue;
    rule_set_.files.push_back(module.file.source);
    for (const ast::Declaration& declaration : module.file.declarations) {
      if (const auto* model = std::get_if<ast::Model>(&declaration)) define_model(*model);
      if (const auto* waive = std::get_if<ast::Waive>(&declaration)) define_waiver(*waive);
      remark(declaration);
    }
  }

  for (FeatureId id = 0; id < rule_set_.features.size(); ++id) {
    if (!sound_features_.contains(id)) unsound_.features.insert(id);
  }
  sort_by_place(diagnostics_);
  // Rules that contradict each other do so in every check that is under both.
  const auto repeated =
      std::unique(diagnostics_.begin(), diagnostics_.end(), [](const Diagnostic& a, const Diagnostic& b) {
        return a.code == b.code && a.span == b.span && a.message == b.message;
      });
  diagnostics_.erase(repeated, diagnostics_.end());
  return {std::move(rule_set_), std::move(unsound_), std::move(diagnostics_)};
}

void sort_by_place(std::vector<Diagnostic>& diagnostics) {
  std::stable_sort(diagnostics.begin(), diagnostics.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::tie(a.span.source, a.span.begin) < std::tie(b.span.source, b.span.begin);
  });
}

Outcome<RuleSet> CheckedParts::whole() && {
  if (has_errors(diagnostics)) return {std::nullopt, std::move(diagnostics)};
  return {std::move(rules), std::move(diagnostics)};
}

// ---- declarations and names ------------------------------------------------------------------

template <class Node>
std::set<std::size_t> Checker::define_each(const std::vector<Work<Node>>& work,
                                           void (Checker::*define)(const Work<Node>&)) {
  std::set<std::size_t> wrong;
  for (const auto& each : work) {
    const std::size_t before = diagnostics_.size();
    (this->*define)(each);
    const Span whole = each.node().span;
    const bool misread = std::any_of(misread_.begin(), misread_.end(), [&](const Span& span) {
      return span.source == whole.source && span.begin >= whole.begin && span.begin <= whole.end;
    });
    if (misread || has_errors({diagnostics_.begin() + static_cast<std::ptrdiff_t>(before), diagnostics_.end()}))
      wrong.insert(each.id);
    // What these hold is read sentence by sentence, but nobody knows what a misread text means.
    if constexpr (std::is_same_v<Node, ast::Rule>) {
      if (misread) rule_set_.rules[each.id].interventions.clear();
    } else if constexpr (std::is_same_v<Node, ast::Check>) {
      if (misread) rule_set_.checks[each.id].expectations.clear();
    }
  }
  return wrong;
}

template <class Node, class Declared>
void Checker::declare(std::size_t module, std::size_t index, std::vector<Declared>& into,
                      std::vector<Work<Node>>& work) {
  const ast::Declaration& declaration = modules_[module].file.declarations[index];
  const auto& node = std::get<Node>(declaration);
  Declared declared;
  declared.name = modules_[module].qualifier + node.name.text;
  declared.span = node.name.span;
  declared.annotations = annotations_of(node.notes);
  declared.imported = !modules_[module].given;
  ids_[{module, index}] = into.size();
  work.push_back({&modules_[module], &declaration, into.size()});
  into.push_back(std::move(declared));
}

void Checker::declare_all() {
  for (std::size_t module = 0; module < modules_.size(); ++module) {
    const auto& declarations = modules_[module].file.declarations;
    for (std::size_t i = 0; i < declarations.size(); ++i) {
      const ast::Declaration& declaration = declarations[i];
      if (std::holds_alternative<ast::Prompts>(declaration)) declare(module, i, rule_set_.prompts, prompts_work_);
      if (std::holds_alternative<ast::Feature>(declaration)) declare(module, i, rule_set_.features, feature_work_);
      if (std::holds_alternative<ast::Rule>(declaration)) declare(module, i, rule_set_.rules, rule_work_);
      if (std::holds_alternative<ast::Edit>(declaration)) declare(module, i, rule_set_.edits, edit_work_);
      if (std::holds_alternative<ast::Circuit>(declaration)) declare(module, i, rule_set_.circuits, circuit_work_);
      // A check of a file that is only used does not run, so it is no part of the rule set.
      if (std::holds_alternative<ast::Check>(declaration) && modules_[module].given) {
        declare(module, i, rule_set_.checks, check_work_);
      }
    }
  }
}

Diagnostic& Checker::report(Code code, Span span, std::string message, std::vector<std::string> help) {
  return diagnostics_.emplace_back(make_diagnostic(code, span, std::move(message), std::move(help)));
}

std::optional<Symbol> Checker::find(SymbolKind kind, const ast::Name& name) {
  const auto found = module_->scope.find({kind, name.text});
  if (found != module_->scope.end()) return found->second;

  for (const SymbolKind other : kKinds) {
    const auto symbol = module_->scope.find({other, name.text});
    if (symbol == module_->scope.end()) continue;
    const Module& home = modules_[symbol->second.module];
    const Span declared = named(home.file.declarations[symbol->second.declaration])->second.span;
    report(Code::wrong_kind, name.span,
           "`" + name.text + "` is " + article(other) + ", and " + article(kind) + " is needed here",
           {"it is declared at " + place_text(sources_, declared)})
        .related.push_back({declared, "declared here"});
    return std::nullopt;
  }
  // Its declaration may be one that could not be read.
  if (module_->lost_use || module_->lost.contains(name.text)) return std::nullopt;

  std::vector<std::string> candidates;
  for (const auto& [key, symbol] : module_->scope) {
    if (key.first == kind) candidates.push_back(key.second);
  }
  const auto is_qualified = [&](const std::string& each) { return each.ends_with("." + name.text); };
  const auto qualified = std::find_if(candidates.begin(), candidates.end(), is_qualified);
  std::vector<Fix> fixes;
  if (qualified == candidates.end()) {
    fixes = spelling_fix(name.span, name.text, candidates);
  } else {
    fixes.push_back({name.span, *qualified, std::none_of(qualified + 1, candidates.end(), is_qualified)});
  }
  std::vector<std::string> help;
  if (!fixes.empty()) help.push_back("did you mean `" + fixes.front().replacement + "`?");
  report(Code::unknown_name, name.span,
         "no " + std::string(kind_name(kind)) + " `" + name.text + "` is declared or used here", std::move(help))
      .fixes = std::move(fixes);
  return std::nullopt;
}

std::optional<std::size_t> Checker::find_id(SymbolKind kind, const ast::Name& name) {
  const auto symbol = find(kind, name);
  if (!symbol) return std::nullopt;
  const auto id = ids_.find({symbol->module, symbol->declaration});
  return id == ids_.end() ? std::nullopt : std::optional(id->second);
}

// ---- model { … } -----------------------------------------------------------------------------

void Checker::define_model(const ast::Model& model) {
  if (!rule_set_.model) rule_set_.model.emplace().span = model.span;
  ModelRequirements& required = *rule_set_.model;

  const auto settle = [&](auto& slot, auto value, const ast::Requirement& requirement) {
    if (slot && *slot != value) {
      report(Code::model_clash, requirement.span,
             "two `model` declarations ask for different values of `" + requirement.key.text + "`",
             {"no model satisfies both: the other is at " + place_text(sources_, required.span)})
          .related.push_back({required.span, "the other `model`"});
    }
    slot = value;
  };
  for (const ast::Requirement& requirement : model.requirements) {
    const std::string& key = requirement.key.text;  // family, layers, width or sha256: `parse` knows no others
    const auto* count = std::get_if<ast::Number>(&requirement.value);
    if (key == "layers" || key == "width") {
      if (count == nullptr) {
        report(Code::wrong_argument, requirement.span, "`" + key + "` takes a whole number");
      } else if (const auto value = whole(*count, "`" + key + "`", {.low = 1})) {
        settle(key == "layers" ? required.layers : required.width, *value, requirement);
      }
      continue;
    }
    if (count != nullptr) {
      report(Code::wrong_argument, requirement.span, "`" + key + "` takes a name or a text");
      continue;
    }
    const auto* name = std::get_if<ast::Name>(&requirement.value);
    std::string value = name != nullptr ? name->text : std::get<ast::String>(requirement.value).value;
    if (key == "family") {
      settle(required.family, value, requirement);
      continue;
    }
    std::transform(value.begin(), value.end(), value.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (value.size() != 64 || value.find_first_not_of("0123456789abcdef") != std::string::npos) {
      report(Code::wrong_argument, requirement.span, "a SHA-256 has 64 hexadecimal digits",
             {"`proviso inspect MODEL` prints the model's"});
    } else {
      settle(required.sha256, value, requirement);
    }
  }
}

// ---- checks and waivers ----------------------------------------------------------------------

void Checker::define_check(const Work<ast::Check>& work) {
  module_ = work.module;
  const ast::Check& node = work.node();
  CheckDecl& check = rule_set_.checks[work.id];
  if (node.severity) check.severity = node.severity->value;
  for (const ast::Under& under : node.under) define_under(under, check);
  check_attack_order(check);
  for (Diagnostic& diagnostic : contradictions(rule_set_, check.under_rules))
    diagnostics_.push_back(std::move(diagnostic));
  check_overridden(node.under, check);

  // What `perturb` adds is a change of its own.
  const bool as_loaded = std::all_of(node.under.begin(), node.under.end(),
                                     [](const ast::Under& under) { return under.kind == ast::Under::Kind::attack; }) &&
                         std::all_of(check.under_attacks.begin(), check.under_attacks.end(),
                                     [](const Attack& attack) { return attack.on_text(); });
  check_ = &check;
  for (const ast::Expectation& expected : node.expectations) {
    auto read = expectation(expected);
    if (!read) continue;
    if (const auto* effect = std::get_if<metric::Effect>(&read->metric.node)) check_change(*effect, read->metric.span);
    const auto& measured = read->metric.node;
    if (as_loaded &&
        (std::holds_alternative<metric::Kl>(measured) || std::holds_alternative<metric::PerplexityRise>(measured))) {
      report(Code::no_effect, read->metric.span,
             "`" + read->metric.text + "` compares the model as loaded with itself, so the check is always vacuous",
             {"say what changes the model: `under rule R` or `under edit E`"});
    }
    check_attack_direction(check, *read);
    check_attacked_circuit(check, *read);
    check_circuit_as_found(node, check, *read);
    check_translated(check, *read);
    check.expectations.push_back(std::move(*read));
  }
  check_ = nullptr;
}

/// An effect's change must change something beside what the check is under already.
void Checker::check_change(const metric::Effect& effect, Span span) {
  const auto in_force = [&](const auto& named, std::size_t id, const std::string& name) {
    if (std::find(named.begin(), named.end(), id) == named.end()) return;
    report(Code::duplicate_under, span, "the check is under `" + name + "` already, so the effect would be of nothing",
           {"leave it out of `under`, or measure the effect of something else"});
  };
  if (const auto* rule = std::get_if<ChangeRule>(&effect.change)) {
    in_force(check_->under_rules, rule->rule, rule_set_.rules[rule->rule].name);
  } else if (const auto* edit = std::get_if<ChangeEdit>(&effect.change)) {
    in_force(check_->under_edits, edit->edit, rule_set_.edits[edit->edit].name);
  }
  const auto known = contradictions(rule_set_, check_->under_rules);  // said already
  for (Diagnostic& found : contradictions(rule_set_, check_->under_rules, &effect.change)) {
    const bool said =
        std::any_of(known.begin(), known.end(), [&](const Diagnostic& k) { return k.message == found.message; });
    if (!said) diagnostics_.push_back(std::move(found));
  }
}

void Checker::define_under(const ast::Under& under, CheckDecl& check) {
  if (under.kind == ast::Under::Kind::attack) {
    for (const ast::Call& call : under.attacks) {
      if (auto read = attack(call)) check.under_attacks.push_back(std::move(*read));
    }
    return;
  }
  const bool rules = under.kind == ast::Under::Kind::rule;
  std::vector<std::size_t>& named = rules ? check.under_rules : check.under_edits;
  for (const ast::Name& name : under.names) {
    const auto id = find_id(rules ? SymbolKind::rule : SymbolKind::edit, name);
    if (!id) continue;
    if (std::find(named.begin(), named.end(), *id) != named.end()) {
      report(Code::duplicate_under, name.span, "the check is under `" + name.text + "` already",
             {rules ? "a rule is in force or not: name it once" : "an edit is applied once: name it once"});
      continue;
    }
    named.push_back(*id);
  }
}

void Checker::define_waiver(const ast::Waive& waive) {
  const auto symbol = find(SymbolKind::check, waive.check);
  if (!symbol) return;
  const auto id = ids_.find({symbol->module, symbol->declaration});
  if (id == ids_.end()) {
    const SourceId home = modules_[symbol->module].file.source;
    report(Code::waived_check_unused, waive.check.span,
           "check `" + waive.check.text + "` does not run: its file is only used",
           {"give " + sources_.at(home).path + " on the command line too"});
    return;
  }
  for (const Waiver& other : rule_set_.waivers) {
    if (other.check != id->second) continue;
    report(Code::duplicate_waiver, waive.check.span, "check `" + waive.check.text + "` is waived already",
           {"the other waiver is at " + place_text(sources_, other.span) + "; keep one"})
        .related.push_back({other.span, "the other waiver"});
    return;
  }
  const auto by = non_empty(waive.by, "who answers for the waiver");
  const auto because = non_empty(waive.because, "the waiver's reason");
  if (by && because) rule_set_.waivers.push_back({id->second, waive.until, *by, *because, waive.span});
}

/// What a declaration says of itself that no later stage has a place for.
void Checker::remark(const ast::Declaration& declaration) {
  Declared remark;
  const ast::Notes* notes = nullptr;
  if (const auto* model = std::get_if<ast::Model>(&declaration)) {
    remark.name = "model";
    remark.span = model->span;
    notes = &model->notes;
  } else if (const auto* waive = std::get_if<ast::Waive>(&declaration)) {
    remark.name = "waive " + waive->check.text;
    remark.span = waive->span;
    notes = &waive->notes;
  } else if (const auto* use = std::get_if<ast::Use>(&declaration)) {
    const auto* library = std::get_if<ast::LibraryName>(&use->what);
    remark.name = "use " + (library != nullptr ? "std/" + library->name : std::get<ast::String>(use->what).value);
    remark.span = use->span;
    notes = &use->notes;
  }
  if (notes == nullptr || *notes == ast::Notes()) return;
  remark.annotations = annotations_of(*notes);
  rule_set_.remarks.push_back(std::move(remark));
}

// ---- the stage -------------------------------------------------------------------------------

Outcome<RuleSet> check_sources(SourceSet& sources, const std::vector<SourceId>& files, const LoadOptions& options) {
  return check_source_parts(sources, files, options).whole();
}

CheckedParts check_source_parts(SourceSet& sources, const std::vector<SourceId>& files, const LoadOptions& options) {
  std::vector<Diagnostic> diagnostics;
  const std::vector<Module> modules = resolve(sources, files, options, diagnostics);
  return check_modules(sources, modules, options, std::move(diagnostics));
}

CheckedParts check_modules(const SourceSet& sources, const std::vector<Module>& modules, const LoadOptions& options,
                           std::vector<Diagnostic> found) {
  return Checker(sources, modules, options).run(std::move(found));
}

Outcome<RuleSet> check_files(SourceSet& sources, const std::vector<std::string>& paths, const LoadOptions& options) {
  return check_file_parts(sources, paths, options).whole();
}

CheckedParts check_file_parts(SourceSet& sources, const std::vector<std::string>& paths, const LoadOptions& options) {
  std::vector<SourceId> files;
  std::vector<Diagnostic> unreadable;
  for (const std::string& path : paths) {
    FileText file = read_rule_file(path);
    const SourceId source = sources.add(path, file.text.value_or(""));
    files.push_back(source);
    if (!file.text) {
      unreadable.push_back(
          make_diagnostic(Code::unreadable_file, {source, 0, 0}, "cannot read " + path + ": " + file.problem));
    }
  }
  CheckedParts checked = check_source_parts(sources, files, options);
  checked.diagnostics.insert(checked.diagnostics.begin(), unreadable.begin(), unreadable.end());
  return checked;
}

}  // namespace proviso::dsl

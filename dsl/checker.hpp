#pragma once

// The inside of `check`: one class, whose parts lie in check_*.cpp, one file a kind of declaration.

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dsl/ast.hpp"
#include "dsl/check.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/resolve.hpp"
#include "dsl/rule_set.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

/// One argument that a call takes: positional ones first and in order, labelled ones by their label.
struct Parameter {
  std::string_view name;
  bool labelled = false;
  bool required = true;
};

/// A call's arguments in the order of its parameters; null where an optional one is left out.
using Arguments = std::vector<const ast::Argument*>;

/// Numbers from `low` to `high`, both included. Limits within 0 and 1 are those of a share, and are shown as
/// percentages.
struct Limits {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

/// Where an intervention acts: nothing for a latent, whose autoencoder says it once a model is known.
std::vector<SiteSpec> sites_of(const RuleSet& rule_set, const Intervention& intervention);

class Checker {
 public:
  Checker(const SourceSet& sources, const std::vector<Module>& modules, const LoadOptions& options);

  /// `diagnostics` are those that reading and resolving have found.
  CheckedParts run(std::vector<Diagnostic> diagnostics);

 private:
  template <class Node>
  struct Work {
    const Module* module;
    const ast::Declaration* declaration;
    std::size_t id;
    const Node& node() const { return std::get<Node>(*declaration); }
  };

  // ---- check.cpp: the whole, names, models, checks and waivers ----
  void declare_all();
  /// Defines each declaration; returns those in which an error was found, now or by those who read the text.
  template <class Node>
  std::set<std::size_t> define_each(const std::vector<Work<Node>>& work, void (Checker::*define)(const Work<Node>&));
  template <class Node, class Declared>
  void declare(std::size_t module, std::size_t index, std::vector<Declared>& into, std::vector<Work<Node>>& work);
  /// The diagnostic as reported, to which fixes and related places can be added at once.
  Diagnostic& report(Code code, Span span, std::string message, std::vector<std::string> help = {});
  std::optional<Symbol> find(SymbolKind kind, const ast::Name& name);
  std::optional<std::size_t> find_id(SymbolKind kind, const ast::Name& name);
  void define_model(const ast::Model& model);
  void define_check(const Work<ast::Check>& work);
  void check_change(const metric::Effect& effect, Span span);
  void define_under(const ast::Under& under, CheckDecl& check);
  void define_waiver(const ast::Waive& waive);
  void remark(const ast::Declaration& declaration);

  // ---- check_arguments.cpp: calls and the values in them ----
  std::optional<Arguments> arguments(const ast::Call& call, std::initializer_list<Parameter> parameters);
  Diagnostic& wrong_argument(const ast::Argument& argument, const std::string& needed);
  std::optional<double> number(const ast::Number& number, const std::string& what, const Limits& limits);
  std::optional<double> number(const ast::Argument& argument, const std::string& what, const Limits& limits);
  std::optional<std::int64_t> whole(const ast::Number& number, const std::string& what, const Limits& limits);
  std::optional<std::int64_t> whole(const ast::Argument& argument, const std::string& what, const Limits& limits);
  std::optional<std::string> text(const ast::Argument& argument, const std::string& what);
  std::optional<std::string> non_empty(const ast::String& string, const std::string& what,
                                       Code code = Code::empty_text);
  std::optional<std::string> word(const ast::Argument& argument, std::initializer_list<std::string_view> allowed);
  std::optional<std::string> regex(const ast::Regex& regex);
  std::optional<std::string> path(const ast::String& path);
  std::optional<PromptsId> prompts(const ast::Argument& argument);
  /// The sets of prompts that a call names, at least one and none by a label, until `see` refuses one.
  bool each_prompt_set(const ast::Call& call, const std::function<bool(PromptsId set, Span span)>& see);
  std::optional<FeatureId> feature(const ast::Argument& argument);

  // ---- check_prompts.cpp ----
  void define_prompts(const Work<ast::Prompts>& work);
  std::vector<Prompt> listed(const ast::PromptList& list);
  std::vector<Prompt> expanded(const ast::Each& each, const std::string& cluster);
  std::optional<PromptFile> prompt_file(const ast::FromFile& from);
  PromptsId anonymous(const ast::PromptList& list);
  std::optional<PromptsId> prompts(const ast::PromptsRef& reference);
  std::optional<PromptsId> prompts(const ast::Name& name);
  bool require_answers(PromptsId id, Span span, std::string_view metric);

  // ---- check_features.cpp ----
  void define_feature(const Work<ast::Feature>& work);
  bool define_constructor(const ast::Call& call, FeatureDecl& feature);
  bool define_contrast(const ast::Call& call, FeatureDecl& feature);
  bool define_probe(const ast::Call& call, FeatureDecl& feature);
  template <class Kind>
  bool define_two_sided(const ast::Call& call, FeatureDecl& feature);
  bool define_whitening(const ast::Argument& argument, Whitening& whiten);
  bool define_zero(const ast::Argument& argument, ZeroPoint& zero);
  bool define_direction(const ast::Call& call, FeatureDecl& feature);
  bool define_unembed(const ast::Call& call, FeatureDecl& feature);
  bool define_neuron(const ast::Call& call, FeatureDecl& feature);
  bool define_latent(const ast::Call& call, FeatureDecl& feature);
  bool define_component(const ast::Call& call, FeatureDecl& feature);
  bool define_subspace(const ast::Call& call, FeatureDecl& feature);
  bool check_members(const FeatureDecl& feature, const ast::Call& call);
  bool take_members_site(FeatureDecl& feature, const ast::Call& call);
  bool define_choice(const ast::Select& node, const ast::Feature& declaration, FeatureDecl& feature);
  std::optional<std::string> autoencoder(const ast::Argument& argument);
  bool check_feature_site(const FeatureDecl& feature, const ast::Name& constructor);
  /// The feature, where its declaration holds: what is wrong with it has been said there.
  const FeatureDecl* sound_feature(FeatureId id) const {
    return sound_features_.contains(id) ? &rule_set_.features[id] : nullptr;
  }

  // ---- check_conditions.cpp ----
  ConditionPtr condition(const ast::Condition& condition);
  ConditionPtr comparison(const ast::Comparison& comparison);
  std::optional<Condition> link(const ast::Operand& left, Compare op, const ast::Operand& right, Span span);
  std::optional<Condition> position_link(const ast::Operand& other, Compare op, Span span);
  std::optional<Operand> operand(const ast::Operand& operand, std::optional<FeatureId> compared_with);

  // ---- check_rules.cpp ----
  void define_rule(const Work<ast::Rule>& work);
  std::optional<Intervention> intervention(const ast::Intervention& intervention);
  std::optional<CircuitSuppression> circuit_suppression(const ast::Intervention& intervention);
  std::optional<Patch> patch(const ast::Patch& patch);
  bool check_widths(const ast::Name& name, const FeatureDecl& feature, const std::vector<ast::Site>& sites);
  void check_order(const ast::Intervention& node, const Intervention& intervention);

  // ---- check_overlap.cpp: what never or always holds, what others override ----
  void check_holding(const Condition& condition);
  void check_parts(const Condition& condition, std::size_t all_reads);
  void never_holds(const Condition& condition, const std::string& consequence);
  void check_overridden(RuleId rule);
  void check_overridden(const std::vector<ast::Under>& under, const CheckDecl& check);

  // ---- check_edits.cpp ----
  void define_edit(const Work<ast::Edit>& work);
  std::optional<Fact> fact(const ast::Fact& fact);
  std::optional<IndexSet> layers(const ast::Argument& argument);
  std::optional<FactFile> fact_file(const ast::FactsFrom& facts);
  std::optional<Remove> remove(const ast::Remove& remove);
  std::optional<RemoveCircuit> remove_circuit(const ast::Remove& remove);
  std::optional<Erase> erase(const ast::Erase& erase);
  bool linear_writers(const std::vector<ast::Site>& sites, const std::string& sentence);
  std::optional<MethodCall> method(const ast::Call& call);

  // ---- check_circuits.cpp ----
  void define_circuit(const Work<ast::Circuit>& work);
  std::optional<CircuitPairs> circuit_pairs(const ast::Pair& pair);
  std::optional<CircuitMeasure> circuit_measure(const ast::Measure& measure);
  std::optional<CircuitMethodCall> circuit_method(const ast::Call& call);
  std::optional<CircuitKeep> circuit_keep(const ast::Keep& keep);
  std::optional<Metric> of_circuit(const ast::Call& call);
  std::optional<Metric> of_circuits(const ast::Call& call);
  void check_circuit_as_found(const ast::Check& node, const CheckDecl& check, const Expectation& expectation);
  bool selection(const ast::Argument* argument, CircuitMethodCall& call);
  bool autoencoders(const ast::Argument* argument, CircuitMethodCall& call);
  /// Whether a circuit's nodes are latents, which something cannot be done to: then it says so, with a cure, or unless
  /// there is one with what can be done to latents.
  bool refused_latents(CircuitId circuit, Span span, const std::string& what, std::string cure = "");

  // ---- check_metrics.cpp ----
  std::optional<Metric> metric(const ast::Call& call);
  std::optional<Metric> effect(const ast::Call& call);
  std::optional<Change> change(const ast::Argument& argument);
  bool effect_path(const ast::Argument& argument, metric::Effect& effect, const std::optional<Change>& change);
  std::optional<Metric> firing_rate(const ast::Call& call);
  std::optional<Metric> rate(const ast::Call& call);
  std::optional<Metric> over_positions(const ast::Call& call);
  std::optional<Metric> auroc(const ast::Call& call);
  /// The feature that a call or a condition reads, which must have an activation.
  std::optional<FeatureId> read_feature(std::optional<FeatureId> id, Span span);
  std::optional<Metric> cosine(const ast::Call& call);
  std::optional<Metric> continuation(const ast::Call& call);
  std::optional<Metric> logit_diff(const ast::Call& call);
  std::optional<Metric> over_prompts(const ast::Call& call);
  std::optional<Metric> loss_recovered(const ast::Call& call);
  std::optional<Metric> of_two_sides(const ast::Call& call);
  std::optional<Metric> of_classes(const ast::Call& call);
  std::optional<Metric> of_edit(const ast::Call& call);
  void check_training(FeatureId feature, std::initializer_list<PromptsId> sets, Span span, Code code);

  // ---- check_attacks.cpp ----
  std::optional<Attack> attack(const ast::Call& call);
  bool attack_form(const ast::Argument& argument, Attack& attack);
  bool attack_templates(const ast::Argument& argument, Attack& attack);
  bool attack_translations(const ast::Call& call, Attack& attack);
  bool attack_number(const ast::Argument* argument, const std::string& what, const Limits& limits,
                     std::int64_t& number);
  bool attack_target(const ast::Argument* argument, Attack& attack);
  void check_attack_order(const CheckDecl& check);
  void check_attack_direction(const CheckDecl& check, const Expectation& expectation);
  void check_translated(const CheckDecl& check, const Expectation& expectation);
  void check_attacked_circuit(const CheckDecl& check, const Expectation& expectation);

  // ---- check_expectations.cpp ----
  std::optional<Expectation> expectation(const ast::Expectation& node);
  bool check_bound(const ast::Expectation& node, const Expectation& expectation);
  bool check_confidence(const ast::Expectation& node, Expectation& expectation);
  bool across(const ast::Expectation& node, Expectation& expectation);
  bool across_seeds(const ast::Call& sweep, Expectation& expectation);
  bool across_ablations(const ast::Call& sweep, Expectation& expectation);
  bool perturbed(const Span& span);
  bool across_paraphrases(const ast::Call& sweep, Expectation& expectation);
  bool anything_random(const Expectation& expectation) const;

  const SourceSet& sources_;
  const std::vector<Module>& modules_;
  const LoadOptions& options_;
  RuleSet rule_set_;
  Unsound unsound_;
  std::vector<Diagnostic> diagnostics_;
  std::vector<Span> misread_;  // places of the errors that reading and resolving have found

  std::map<std::pair<std::size_t, std::size_t>, std::size_t> ids_;  // (module, declaration) -> index in its vector
  std::vector<Work<ast::Prompts>> prompts_work_;
  std::vector<Work<ast::Feature>> feature_work_;
  std::vector<Work<ast::Rule>> rule_work_;
  std::vector<Work<ast::Edit>> edit_work_;
  std::vector<Work<ast::Circuit>> circuit_work_;
  std::vector<Work<ast::Check>> check_work_;

  std::set<PromptsId> empty_sets_;  // literal lists without an item
  std::set<FeatureId> sound_features_;
  const Module* module_ = nullptr;    // whose declaration is being defined: names are looked up in its scope
  const ast::Edit* edit_ = nullptr;   // the edit whose expectations are being read
  MethodCall edit_method_;            // … and its method
  const CheckDecl* check_ = nullptr;  // the check whose expectations are being read
};

}  // namespace proviso::dsl

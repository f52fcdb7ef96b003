#pragma once

// What a checked set of rule files says: names resolved, types right, literals in range; no model is
// known yet. Everything a user wrote in place of a name (an inline list of prompts) has become an
// anonymous declaration, so that later stages meet only ids. Ids index the vectors of `RuleSet`.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dsl/declarations.hpp"
#include "dsl/metrics.hpp"
#include "dsl/site.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

// ---- edits -----------------------------------------------------------------------------------

struct Fact {
  std::string subject;
  std::string prompt_template;      ///< holds one "{}"
  std::optional<std::string> from;  ///< T0
  std::string to;                   ///< T1
  Span span;
};
struct Remove {
  FeatureId feature = 0;
  std::vector<SiteSpec> sites;
  Span span;
};
/// `facts from "file.json"`: read at bind time, as prompts are; `field` and `cluster` are not given.
struct FactFile {
  PromptFile file;
  Span span;
};
/// `erase [she, he] at mlp_out[*]`: every linear trace of which class a text belongs to.
struct Erase {
  std::vector<PromptsId> sets;
  bool by_answer = false;       ///< one set, whose continuations are the classes; otherwise a set is a class
  std::vector<SiteSpec> sites;  ///< empty: every linear writer of the model
  Span span;
};
/// `remove circuit C`: what its heads and MLPs write becomes a constant.
struct RemoveCircuit {
  CircuitId circuit = 0;
  Span span;
};
using EditChange = std::variant<Fact, FactFile, Remove, Erase, RemoveCircuit>;

/// What a method changes.
enum class EditSubject { facts, direction, labels, circuit };

enum class EditMethod {
#define PROVISO_EDIT_METHOD(method, subject) method,
#include "dsl/edit_methods.def"
};
struct EditMethodTraits {
  EditMethod method;
  std::string_view name;
  EditSubject subject;
};
inline constexpr EditMethodTraits kEditMethods[] = {
#define PROVISO_EDIT_METHOD(method, subject) {EditMethod::method, #method, EditSubject::subject},
#include "dsl/edit_methods.def"
};
inline const EditMethodTraits& traits(EditMethod method) { return kEditMethods[static_cast<std::size_t>(method)]; }

struct MethodCall {
  EditMethod method = EditMethod::rome;
  std::map<std::string, std::variant<double, std::string>> parameters;  ///< known names, checked types and ranges
  std::optional<IndexSet> layers;                                       ///< of methods that change several
  bool traced = false;  ///< `layer: auto`, `layers: auto`: chosen by causal tracing
  Span span;
};

struct EditDecl : Declared {
  std::vector<EditChange> changes;
  MethodCall method;
  std::vector<Expectation> expectations;
};

// ---- attacks ---------------------------------------------------------------------------------

enum class AttackKind {
#define PROVISO_ATTACK(kind) kind,
#include "dsl/attacks.def"
};
enum class AttackForm {
  none,
#define PROVISO_ATTACK_FORM(kind, form, word) form,
#include "dsl/attacks.def"
};

/// `typos(rate: 5%)`: what is done to the text of every prompt, before the chat template and the model get it; of
/// `perturb` what is added to the residual stream.
struct Attack {
  AttackKind kind = AttackKind::typos;
  double rate = 0;
  AttackForm form = AttackForm::none;
  std::vector<std::string> templates;   ///< of `paraphrases`: each holds one "{}"
  PromptsId texts = 0;                  ///< of `distractors`
  std::vector<PromptsId> translations;  ///< each as long as the set attacked, in its order
  std::int64_t steps = 0;               ///< of `suffix_search`, and of `perturb`: 0 is a direction drawn
  std::int64_t tokens = 0;              ///< of `suffix_search`: how long the suffix is
  std::int64_t candidates = 0;          ///< of `suffix_search`: how many are tried a step
  std::optional<std::string> toward;    ///< what a search makes likely; nothing: expected continuations unlikely
  double norm = 0;                      ///< of `perturb`: ‖Δx‖/‖x‖
  std::optional<std::int64_t> layer;    ///< of `perturb`: at its `resid_post`; nothing: at `embed`
  std::string text;                     ///< canonical
  Span span;

  bool random() const;    ///< whether the seed decides what becomes of a prompt
  bool searches() const;  ///< whether only the model can tell what becomes of a prompt
  bool on_text() const { return kind != AttackKind::perturb; }
};

// ---- circuits --------------------------------------------------------------------------------

/// Clean prompts and what they are corrupted to: two sets of one size, paired in order.
struct CircuitPairs {
  PromptsId clean = 0, corrupt = 0;
  Span span;
  bool held = false;  ///< measured on, and not found on
};

/// What a circuit is to carry: a number read after the last token of a prompt.
struct CircuitMeasure {
  enum class Kind {
    logit_diff,   ///< logit of `a` less that of `b`
    answer_diff,  ///< logit of the clean prompt's expected continuation less that of the corrupt one's
    probability   ///< of `a`
  } kind = Kind::logit_diff;
  std::string a, b;
  std::string text;  ///< canonical
  Span span;
  Span a_span, b_span;
};

enum class CircuitMethod { eap, eap_ig, exact };
std::string_view circuit_method_name(CircuitMethod method);

/// A sparse autoencoder whose latents, and error term, are a circuit's nodes.
struct CircuitAutoencoder {
  std::string folder;   ///< as resolved
  std::string written;  ///< as the file names it
  Span span;
};

struct CircuitMethodCall {
  CircuitMethod method = CircuitMethod::eap_ig;
  std::int64_t steps = 5;       ///< of eap_ig: points between the corrupt and the clean activations
  std::int64_t budget = 20000;  ///< of exact: the most edges, or nodes, that are patched one by one
  bool greedy = false;          ///< grown from the logits, each edge into what is kept by then; otherwise the strongest
  std::vector<CircuitAutoencoder> autoencoders;  ///< in written order; none: nodes are attention heads and MLPs
  Span span;

  bool of_latents() const { return !autoencoders.empty(); }
};

/// The strongest edges, or nodes with all edges between them: so many, or a share of all that the model has.
struct CircuitKeep {
  double amount = 0;
  bool share = false;
  bool nodes = false;  ///< heads and MLPs (the embedding and the logits are always kept), or latents and error terms
  Span span;
};

struct CircuitDecl : Declared {
  std::vector<CircuitPairs> pairs;
  CircuitMeasure measure;
  CircuitMethodCall method;
  CircuitKeep keep;
};

// ---- checks and waivers ----------------------------------------------------------------------

enum class CheckSeverity { info, minor, major, critical };
std::string_view severity_name(CheckSeverity severity);

struct CheckDecl : Declared {
  CheckSeverity severity = CheckSeverity::major;
  std::vector<RuleId> under_rules;
  std::vector<EditId> under_edits;    ///< in written order
  std::vector<Attack> under_attacks;  ///< composed in written order
  std::vector<Expectation> expectations;
};

struct Date {
  int year = 0, month = 0, day = 0;
  auto operator<=>(const Date&) const = default;
};

struct Waiver {
  CheckId check = 0;
  Date until;  ///< the day included, UTC
  std::string by;
  std::string because;
  Span span;
};

struct RuleSet {
  std::vector<SourceId> files;  ///< those given on the command line, in order (not those they `use`)
  std::optional<ModelRequirements> model;
  std::vector<PromptsDecl> prompts;
  std::vector<FeatureDecl> features;
  std::vector<RuleDecl> rules;
  std::vector<EditDecl> edits;
  std::vector<CircuitDecl> circuits;
  std::vector<CheckDecl> checks;
  std::vector<Waiver> waivers;
  std::vector<Declared> remarks;  ///< `use`, `model` and `waive` that say something of themselves: "use std/plain"

  /// The rules and edits that the files declare themselves: what they `use` is in force only where they say so.
  std::vector<RuleId> own_rules() const;
  std::vector<EditId> own_edits() const;
};

}  // namespace proviso::dsl

#pragma once

// What a checked set of rule files says: names resolved, types right, literals in range; no model is
// known yet. Everything a user wrote in place of a name (an inline list of prompts) has become an
// anonymous declaration, so that later stages meet only ids. Ids index the vectors of `RuleSet`.

#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dsl/site.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

using PromptsId = std::size_t;
using FeatureId = std::size_t;
using RuleId = std::size_t;
using EditId = std::size_t;
using CheckId = std::size_t;
using CircuitId = std::size_t;

/// What any declaration may carry to the report.
struct Annotations {
  std::string title;
  std::string description;
  std::vector<std::string> tags;
  std::vector<std::pair<std::string, std::string>> meta;
  enum class Status { stable, experimental, deprecated } status = Status::stable;
};

struct Declared {
  std::string name;  ///< "" for an anonymous prompt list; "pack.name" for what `use … as pack` brings
  Span span;         ///< the name, or the whole literal where there is none
  Annotations annotations;
  bool imported = false;  ///< through `use`: acts only where named, its examples do not run
};

struct ModelRequirements {
  std::optional<std::string> family;
  std::optional<std::int64_t> layers;
  std::optional<std::int64_t> width;
  std::optional<std::string> sha256;
  Span span;
};

// ---- prompts ---------------------------------------------------------------------------------

struct Prompt {
  std::string text;
  std::vector<std::string> answers;  ///< expected continuations; any of them counts
  std::string cluster;               ///< prompts of one template or document share it; "" is a cluster of its own
  Span span;
};

/// A file of prompts, read at bind time. `format` follows the extension: .txt one text a line, .jsonl,
/// .json (an array of objects or strings), .csv (with a header line).
struct PromptFile {
  std::string path;                    ///< as resolved: may be opened
  std::optional<std::string> field;    ///< the prompt's field; required for objects with more than one field
  std::optional<std::string> answer;   ///< the expected continuation's field
  std::optional<std::string> cluster;  ///< the field that names the document
  std::optional<std::int64_t> take;
  std::optional<std::uint64_t> seed;  ///< with `take`: a seeded draw; without it the first ones
  Span span;                          ///< the path
};

struct Chat {
  std::optional<std::string> system;
};

struct PromptsDecl : Declared {
  std::variant<std::vector<Prompt>, PromptFile> source;
  std::optional<Chat> chat;
};

// ---- features --------------------------------------------------------------------------------

struct TokenChoice {
  enum class Kind { last, index, all } kind = Kind::last;
  std::int64_t index = 0;  ///< from 0, or from the end if negative
};

struct ZeroPoint {
  enum class Kind { q_mean, midpoint, mean_of, origin } kind = Kind::q_mean;
  PromptsId prompts = 0;  ///< of mean_of
};

/// What the vectors are made white by before a direction is found between two sides.
struct Whitening {
  enum class Kind {
    none,
    sides,         ///< the covariance of the sides' own vectors about their sides' means
    covariance_of  ///< that of what stands at the positions of other prompts
  } kind = Kind::none;
  PromptsId prompts = 0;  ///< of covariance_of
};

/// What is built from prompts that have something and prompts that lack it.
struct TwoSided {
  PromptsId p = 0, q = 0;
  ZeroPoint zero;
  Whitening whiten;
  bool keep_sink = false;
};
struct Contrast : TwoSided {};
struct Probe : TwoSided {};
/// A principal component of what stands at the token asked for.
struct Component {
  PromptsId prompts = 0;
  std::int64_t index = 1;  ///< from 1, the one of the greatest variance
  bool keep_sink = false;
  Span span;  ///< the index
};
/// The span of several directions: it has no activation of its own, and is suppressed or removed as a whole.
struct Subspace {
  std::vector<FeatureId> members;
};
struct StoredDirection {
  std::string path;  ///< as resolved
  std::string tensor;
  double offset = 0;  ///< b
  double scale = 1;   ///< c
  Span span;
};
struct Unembed {
  std::string plus;
  std::optional<std::string> minus;
  Span plus_span, minus_span;
};
struct Neuron {
  std::int64_t index = 0;
  Span span;
};
/// A latent of the sparse autoencoder in a folder.
struct Latent {
  std::int64_t index = 0;
  std::string folder;  ///< as resolved
  Span span;           ///< the index
  Span folder_span;
};

/// `select best`, `select best on (P, Q)`: the site among several that tells the sides apart best.
struct SiteChoice {
  std::optional<std::pair<PromptsId, PromptsId>> on;  ///< nothing: folds of the prompts that build the feature
  Span span;
};

struct FeatureDecl : Declared {
  std::variant<
#define PROVISO_CONSTRUCTOR_FIRST(Type, name) Type
#define PROVISO_CONSTRUCTOR(Type, name) , Type
#include "dsl/constructors.def"
      >
      constructor;
  TokenChoice token;
  std::optional<SiteChoice> choice;  ///< with it `site` names several layers or heads, of which the model decides
  /// One site, one layer. Nothing: where the latent's autoencoder reads, which binding finds.
  std::optional<SiteSpec> site;
};

inline constexpr std::string_view kConstructorNames[] = {
#define PROVISO_CONSTRUCTOR(Type, name) #name,
#include "dsl/constructors.def"
};
static_assert(std::size(kConstructorNames) == std::variant_size_v<decltype(FeatureDecl::constructor)>);
/// "contrast"
inline std::string_view constructor_name(const FeatureDecl& feature) {
  return kConstructorNames[feature.constructor.index()];
}
/// The features that a subspace spans; empty of any other feature.
inline std::vector<FeatureId> members_of(const FeatureDecl& feature) {
  const auto* subspace = std::get_if<Subspace>(&feature.constructor);
  return subspace ? subspace->members : std::vector<FeatureId>{};
}

// ---- conditions ------------------------------------------------------------------------------

enum class Compare { less, less_equal, greater, greater_equal, equal, not_equal };
std::string_view compare_text(Compare op);  ///< "<="
Compare mirrored(Compare op);               ///< `0.5 < anger` is `anger > 0.5`

struct Quantile {
  double p = 0.5;  ///< 0.99: the value that 1 % of the prompts' positions exceed
  PromptsId prompts = 0;
  FeatureId feature = 0;  ///< whose values: the feature it is compared with
};
using Operand = std::variant<double, FeatureId, Quantile>;

struct Condition;
using ConditionPtr = std::shared_ptr<const Condition>;

struct Comparison {
  Operand left;
  Compare op = Compare::greater;
  Operand right;
};
struct PromptMatches {
  std::string regex;  ///< RE2 syntax, flags already folded in: "(?i)sorry"
};
struct TokenIn {
  std::vector<std::string> texts;
  std::vector<Span> spans;  ///< of each text
};
struct PositionIs {
  Compare op = Compare::equal;
  std::int64_t value = 0;
};
struct Generated {};
struct Any {
  ConditionPtr of;
};  ///< held at some position from 1 to this
struct Last {
  ConditionPtr of;
};  ///< held at the last prompt token; false before it
struct Not {
  ConditionPtr of;
};
struct And {
  std::vector<ConditionPtr> of;
};
struct Or {
  std::vector<ConditionPtr> of;
};

struct Condition {
  std::variant<Comparison, PromptMatches, TokenIn, PositionIs, Generated, Any, Last, Not, And, Or> node;
  Span span;
};

// ---- rules -----------------------------------------------------------------------------------

enum class Operation { suppress, amplify, clamp, steer, cap };
std::string_view operation_name(Operation op);

struct Intervention {
  Operation operation = Operation::suppress;
  FeatureId feature = 0;
  double amount = 1;  ///< suppress: the share removed, 0 … 1; amplify: the factor; clamp, steer, cap: calibrated units
  std::vector<SiteSpec> sites;  ///< empty: the feature's own
  ConditionPtr condition;       ///< null: unconditional
  std::string condition_text;   ///< canonical; "" where unconditional: equal texts hold at the same positions
  std::string text;             ///< canonical, as `fmt` writes it
  Span span;
};

/// `suppress circuit C`: of what the circuit carries, as much becomes what it is without the behaviour.
struct CircuitSuppression {
  CircuitId circuit = 0;
  double share = 1;
  std::string text;  ///< canonical
  Span span;
};

struct RuleDecl : Declared {
  std::vector<Intervention> interventions;
  std::vector<CircuitSuppression> circuits;
  std::vector<PromptsId> fires_on;
  std::vector<PromptsId> silent_on;
  Span fires_span, silent_span;
};

// ---- metrics and expectations ----------------------------------------------------------------

struct Metric;
using MetricPtr = std::shared_ptr<const Metric>;

struct ChangeRule {
  RuleId rule = 0;
};
struct ChangeEdit {
  EditId edit = 0;
};
/// `patch z[9] head 3 from P`: whole activations, or one feature's part of them, become those of other prompts.
struct Patch {
  enum class Source {
    prompts,  ///< of `from`, each at the same place as the prompt measured and of as many tokens
    zero,
    mean,     ///< over `from`
    resample  ///< of another one of the prompts measured, drawn by the seed
  } source = Source::prompts;
  PromptsId from = 0;
  std::optional<FeatureId> feature;  ///< at its own site; nothing: `sites` are patched whole
  std::vector<SiteSpec> sites;
  ConditionPtr condition;  ///< null: at every position; reads no feature
  std::string text;        ///< canonical
  Span span;
};
using Change = std::variant<Intervention, ChangeRule, ChangeEdit, CircuitSuppression, Patch>;

namespace metric {
struct Probability {
  std::string text;
  PromptsId after = 0;
  Span text_span;
};
struct Rank {
  std::string text;
  PromptsId after = 0;
  Span text_span;
};
struct LogitDiff {
  std::string a, b;
  PromptsId after = 0;
  Span a_span, b_span;
};
struct Accuracy {
  PromptsId prompts = 0;
};
struct Rate {
  PromptsId prompts = 0;
  std::string regex;  ///< RE2, flags folded in
  std::int64_t tokens = 32;
  std::int64_t samples = 1;
  double temperature = 0;  ///< 0: greedy
};
struct Perplexity {
  PromptsId prompts = 0;
};
struct PerplexityRise {
  PromptsId prompts = 0;
};
struct Kl {
  PromptsId prompts = 0;
};
struct Mean {
  FeatureId feature = 0;
  PromptsId on = 0;
};
struct Max {
  FeatureId feature = 0;
  PromptsId on = 0;
};
struct FiringRate {
  FeatureId feature = 0;
  Compare op = Compare::greater;
  double threshold = 0;
  PromptsId on = 0;
};
struct Auroc {
  FeatureId feature = 0;
  PromptsId p = 0, q = 0;
};
struct Cosine {
  FeatureId f = 0, g = 0;
};
struct Effect {
  Change change;
  MetricPtr on;
  std::int64_t controls = 32;
  bool direct = false;  ///< by the path to the logits alone: all that later layers compute stays as it was
};
struct Efficacy {};
struct Paraphrase {
  PromptsId prompts = 0;
};
struct Specificity {
  PromptsId prompts = 0;
};
struct LossRecovered {
  std::string folder;  ///< of the sparse autoencoder, as resolved
  PromptsId prompts = 0;
  Span span;  ///< the folder
};
// How well single latents of a sparse autoencoder stand for what sets of prompts differ in, in the manner of SAEBench.
/// Held-out accuracy of a probe on the `k` latents that differ most between two sides.
struct SparseProbing {
  std::string folder;
  PromptsId p = 0, q = 0;
  std::int64_t k = 1;
  Span span;  ///< the folder
};
/// Share of P's prompts, among those that a probe tells for P's, where the `k` latents of P are silent and another
/// latent says what they should.
struct Absorption {
  std::string folder;
  PromptsId p = 0, q = 0;
  std::int64_t k = 1;
  Span span;
};
/// What ablating a class's `k` latents costs its own probe, less what it costs those of other classes.
struct Tpp {
  std::string folder;
  std::vector<PromptsId> sets;  ///< a class each
  std::int64_t k = 10;
  Span span;
};
/// How much of a probe's wrong correlation goes with the `k` latents of what it should not read.
struct Scr {
  std::string folder;
  std::vector<PromptsId> sets;  ///< four: wanted with and without the spurious, unwanted with and without it
  std::int64_t k = 10;
  Span span;
};
struct Faithfulness {
  CircuitId circuit = 0;
};
struct Completeness {
  CircuitId circuit = 0;
};
struct Minimality {
  CircuitId circuit = 0;
};
struct Stability {
  CircuitId circuit = 0;
};
struct Overlap {
  CircuitId first = 0, second = 0;
};
}  // namespace metric

struct Metric {
  std::variant<metric::Probability, metric::Rank, metric::LogitDiff, metric::Accuracy, metric::Rate, metric::Perplexity,
               metric::PerplexityRise, metric::Kl, metric::Mean, metric::Max, metric::FiringRate, metric::Auroc,
               metric::Cosine, metric::Effect, metric::Efficacy, metric::Paraphrase, metric::Specificity,
               metric::LossRecovered, metric::SparseProbing, metric::Absorption, metric::Tpp, metric::Scr,
               metric::Faithfulness, metric::Completeness, metric::Minimality, metric::Stability, metric::Overlap>
      node;
  std::string text;  ///< canonical
  Span span;
};

/// How a feature is taken out: d·x becomes 0, its mean over the prompts measured, or what it is in another of them. Of
/// a circuit, what the edges outside it carry: nothing, the mean over the clean prompts, or what the corrupt prompt
/// wrote.
enum class Ablation { zero, mean, resample };
inline constexpr std::string_view kAblationNames[] = {"zero", "mean", "resample"};
constexpr std::string_view ablation_name(Ablation ablation) {
  return kAblationNames[static_cast<std::size_t>(ablation)];
}

/// `across seeds(5), paraphrases(P)`: every combination is measured.
struct Across {
  std::int64_t seeds = 0;  ///< 0: not asked for
  std::vector<Ablation> ablations;
  std::vector<PromptsId> paraphrases;  ///< each in turn stands for the metric's one set, beside the set itself
  bool empty() const { return seeds == 0 && ablations.empty() && paraphrases.empty(); }
};

struct Expectation {
  Metric metric;
  Compare op = Compare::greater_equal;
  double bound = 0;
  std::optional<double> confidence;  ///< 0.95 for `at 95% confidence`
  bool relative = false;             ///< of the value before (`effect` only)
  bool beyond_control = false;
  Across across;
  std::string text;  ///< canonical and whole: "rate(angry, generates: /idiot/i) <= 2% at 95% confidence"
  Span span;
};

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

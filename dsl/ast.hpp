#pragma once

// What one rule file says, as written: names are not resolved, arguments not typed, ranges not checked.
// Every node carries the span it was read from. Equality of nodes ignores spans: two files are equal
// where they say the same, which is what `format` must preserve.
//
// Settled by `parse`, so that no later stage asks again: literals are decoded and finite, dates exist,
// site names and the presence of their layer and head are right, ranges ascend, a chain's operators
// point one way, `fact` templates hold exactly one `{}`, nested `and`s and `or`s are flat.
// Left to `check`: names, what a call's arguments mean, whether a regular expression is RE2.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "dsl/rule_set.hpp"  // Compare, Operation, Date: the words that both stages share
#include "dsl/site.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl::ast {

/// Where a node was written. All places are equal, so that nodes compare by what they say.
struct Place : Span {
  Place() = default;
  Place(Span span) : Span(span) {}  // NOLINT(google-explicit-constructor): a span is a place
  friend bool operator==(const Place&, const Place&) { return true; }
};

/// A shared, immutable child of its own kind; compares by value. Never empty once parsed.
template <class T>
class Box {
 public:
  Box() = default;
  explicit Box(T value) : value_(std::make_shared<const T>(std::move(value))) {}
  const T& operator*() const { return *value_; }
  const T* operator->() const { return value_.get(); }
  friend bool operator==(const Box& a, const Box& b) { return *a == *b; }

 private:
  std::shared_ptr<const T> value_;
};

// ---- words and literals ----------------------------------------------------------------------

/// `anger`, or `pack.anger` for what `use … as pack` brings.
struct Name {
  std::string text;
  Place span;
  bool operator==(const Name&) const = default;
};

/// `80%` has value 0.8. `text` is the number as written.
struct Number {
  double value = 0;
  bool percent = false;
  std::string text;
  Place span;
  bool operator==(const Number&) const = default;
  /// The value where it is written as a whole number that fits: `512`, `-1`; never `1.0` or `5%`.
  std::optional<std::int64_t> integer() const;
};

/// `value` has its JSON escapes decoded.
struct String {
  std::string value;
  Place span;
  bool operator==(const String&) const = default;
};

/// `/idiot|stupid/i`; in `pattern` the delimiter's `\/` has become `/`.
struct Regex {
  std::string pattern;
  std::string flags;  ///< among i, m, s, once each, in this order
  Place span;
  bool operator==(const Regex&) const = default;
  std::string re2() const;  ///< "(?i)idiot|stupid": what RE2 reads
};

/// `4..12`, `[1, 4..6]`.
struct Indices {
  IndexSet set;
  Place span;
  bool operator==(const Indices&) const = default;
};

/// A slot of a template: `{who}`; in `fact` the name is empty: `{}`.
struct Slot {
  Name name;
  bool operator==(const Slot&) const = default;
};

/// `"{who} works as a {job} and"`, cut at its slots; `{{` and `}}` have become braces.
struct Template {
  std::vector<std::variant<std::string, Slot>> parts;
  Place span;
  bool operator==(const Template&) const = default;
};

struct Site : SiteSpec {
  friend bool operator==(const Site& a, const Site& b) {
    return a.kind == b.kind && a.layers == b.layers && a.heads == b.heads;
  }
};

// ---- prompts ---------------------------------------------------------------------------------

/// `"The capital of Italy is" -> [" Rome", " Roma"]`
struct PromptItem {
  String text;
  std::vector<String> answers;
  Place span;
  bool operator==(const PromptItem&) const = default;
};

struct PromptList {
  std::vector<PromptItem> items;
  Place span;
  bool operator==(const PromptList&) const = default;
};

/// A name, or the list itself.
using PromptsRef = std::variant<Name, PromptList>;

// ---- calls: constructors, metrics, methods, attacks, sweeps ----------------------------------

struct Argument;

/// `rome(layer: 5)`, `accuracy(capitals)`; without parentheses (`efficacy`) there are no arguments.
struct Call {
  Name name;
  std::vector<Argument> arguments;
  Place span;
  bool operator==(const Call&) const = default;
};

/// `" a" - " b"` of `unembed`.
struct TokenDifference {
  String plus;
  String minus;
  Place span;
  bool operator==(const TokenDifference&) const = default;
};

/// `position` as an operand: `position >= 4`.
struct PositionWord {
  Place span;
  bool operator==(const PositionWord&) const = default;
};

/// A call is only ever `quantile(…)`.
using Operand = std::variant<Number, Name, Call, PositionWord>;

/// `0.2 < anger < 0.8` has two links. At least one; all operators of a chain of two or more point one way.
struct Comparison {
  struct Link {
    Compare op = Compare::greater;
    Operand right;
    bool operator==(const Link&) const = default;
  };
  Operand left;
  std::vector<Link> links;
  Place span;
  bool operator==(const Comparison&) const = default;
};

// ---- conditions ------------------------------------------------------------------------------

struct Condition;

struct PromptMatches {
  Regex regex;
  bool operator==(const PromptMatches&) const = default;
};
/// `token is " not"`, `token in [" not", " never"]`.
struct TokenIn {
  std::vector<String> texts;
  bool list = false;  ///< written with `in`
  Place span{};       ///< of the list
  bool operator==(const TokenIn&) const = default;
};
struct Generated {
  bool operator==(const Generated&) const = default;
};
struct Any {
  Box<Condition> of;
  bool operator==(const Any&) const = default;
};
struct Last {
  Box<Condition> of;
  bool operator==(const Last&) const = default;
};
struct Not {
  Box<Condition> of;
  bool operator==(const Not&) const = default;
};
struct And {
  std::vector<Condition> of;  ///< two or more, none of them an And
  bool operator==(const And&) const = default;
};
struct Or {
  std::vector<Condition> of;  ///< two or more, none of them an Or
  bool operator==(const Or&) const = default;
};

struct Condition {
  std::variant<Comparison, PromptMatches, TokenIn, Generated, Any, Last, Not, And, Or> node;
  Place span;
  bool operator==(const Condition&) const = default;
};

// ---- interventions and changes ---------------------------------------------------------------

/// `suppress anger by 80% at mlp_out[*] when last anger > 0.5`, `suppress circuit capital_of`
struct Intervention {
  Operation operation = Operation::suppress;
  bool circuit = false;  ///< `feature` names a circuit
  Name feature;
  std::optional<Number> amount;  ///< missing only with `suppress`
  std::vector<Site> sites;       ///< empty: the feature's own
  std::optional<Box<Condition>> condition;
  Place span;
  bool operator==(const Intervention&) const = default;
};

/// `patch z[9] head 3 from corrupt when position >= 2`, `patch feature anger from calm`: the source is a prompt set,
/// one of the words `zero` and `resample`, or `mean(P)`.
struct Patch {
  std::optional<Name> feature;
  std::vector<Site> sites;  ///< empty where it is a feature's
  std::variant<Name, PromptList, Call> source;
  std::optional<Box<Condition>> condition;
  Place span;
  bool operator==(const Patch&) const = default;
};

struct RuleRef {
  Name rule;
  bool operator==(const RuleRef&) const = default;
};
struct EditRef {
  Name edit;
  bool operator==(const EditRef&) const = default;
};

/// What may stand for an argument. `Comparison` is `anger > 0.5` of `firing_rate`; an intervention, a patch,
/// `rule R` and `edit E` are the changes of `effect`.
using Value = std::variant<Number, String, Regex, Name, Indices, PromptList, TokenDifference, Comparison, Call,
                           Intervention, Patch, RuleRef, EditRef>;

struct Argument {
  std::optional<Name> label;  ///< `zero` of `zero: midpoint`
  Value value;
  Place span;
  bool operator==(const Argument&) const = default;
};

// ---- expectations ----------------------------------------------------------------------------

/// `effect(suppress anger, on: …) <= -10% relative beyond control at 95% confidence across seeds(5)`
struct Expectation {
  Call metric;
  Compare op = Compare::greater_equal;
  Number bound;
  bool relative = false;
  bool beyond_control = false;
  std::optional<Number> confidence;
  std::vector<Call> across;
  Place span;
  bool operator==(const Expectation&) const = default;
};

// ---- declarations ----------------------------------------------------------------------------

struct MetaEntry {
  Name key;
  String value;
  Place span;
  bool operator==(const MetaEntry&) const = default;
};

struct Tags {
  std::vector<String> values;
  Place span;
  bool operator==(const Tags&) const = default;
};

struct Meta {
  std::vector<MetaEntry> entries;
  Place span;
  bool operator==(const Meta&) const = default;
};

/// `description "…"`: the place is the whole statement's.
struct Description {
  String text;
  Place span;
  bool operator==(const Description&) const = default;
};

struct StatusLine {
  Annotations::Status value = Annotations::Status::stable;
  Place span;
  bool operator==(const StatusLine&) const = default;
};

/// What any declaration may carry. Each is written at most once.
struct Notes {
  std::optional<String> title;
  std::optional<Description> description;
  std::optional<Tags> tags;
  std::optional<Meta> meta;
  std::optional<StatusLine> status;
  bool operator==(const Notes&) const = default;
};

/// `std/gender`: the shipped library's `gender`.
struct LibraryName {
  std::string name;
  Place span;
  bool operator==(const LibraryName&) const = default;
};

/// `use "pack.proviso" as pack`, `use std/gender`
struct Use {
  std::variant<String, LibraryName> what;
  std::optional<Name> alias;
  Notes notes;
  Place span;
  bool operator==(const Use&) const = default;
};

/// `family llama`, `layers 30`, `sha256 "…"`
struct Requirement {
  Name key;
  std::variant<Name, Number, String> value;
  Place span;
  bool operator==(const Requirement&) const = default;
};

struct Model {
  std::vector<Requirement> requirements;
  Notes notes;
  Place span;
  bool operator==(const Model&) const = default;
};

/// `from "held.jsonl" { field "prompt"  take 200 }`; of one key only the first is kept.
struct FromFile {
  String path;
  std::optional<Number> take, seed;
  std::optional<String> field, answer, cluster;
  Place span;
  bool operator==(const FromFile&) const = default;
};

/// `each who in ["He", "She"] "{who} works"`
struct Each {
  struct Binding {
    Name name;
    std::vector<String> values;
    Place span;  ///< of the values
    bool operator==(const Binding&) const = default;
  };
  std::vector<Binding> bindings;
  Template text;
  std::vector<Template> answers;
  Place span;
  bool operator==(const Each&) const = default;
};

struct AsChat {
  std::optional<String> system;
  Place span;
  bool operator==(const AsChat&) const = default;
};

struct Prompts {
  Name name;
  std::optional<AsChat> chat;
  std::variant<PromptList, FromFile, Each> source;
  Notes notes;
  Place span;
  bool operator==(const Prompts&) const = default;
};

struct Token {
  TokenChoice choice;
  Place span;
  friend bool operator==(const Token& a, const Token& b) {
    return a.choice.kind == b.choice.kind && a.choice.index == b.choice.index;
  }
};

/// `select best on (P, Q)`
struct Select {
  std::optional<std::pair<PromptsRef, PromptsRef>> on;
  Place span;
  bool operator==(const Select&) const = default;
};

struct Feature {
  Name name;
  Call constructor;
  std::optional<Site> site;  ///< a `latent` and a `subspace` may leave it out
  std::optional<Select> select;
  std::optional<Token> token;
  Notes notes;
  Place span;
  bool operator==(const Feature&) const = default;
};

/// `fires on angry, ["You idiot"]`
struct Example {
  bool fires = true;  ///< false: `silent on`
  std::vector<PromptsRef> prompts;
  Place span;
  bool operator==(const Example&) const = default;
};

struct Rule {
  Name name;
  std::vector<Intervention> interventions;
  std::vector<Example> examples;
  Notes notes;
  Place span;
  bool operator==(const Rule&) const = default;
};

struct Fact {
  String subject;
  Template in;  ///< one slot, without a name
  std::optional<String> from;
  String to;
  Place span;
  bool operator==(const Fact&) const = default;
};

struct FactsFrom {
  FromFile file;
  Place span;
  bool operator==(const FactsFrom&) const = default;
};

/// `remove gender at mlp_out[*]`, `remove circuit deceit`
struct Remove {
  Name feature;             ///< or a circuit's
  std::vector<Site> sites;  ///< empty where it is a circuit
  Place span;
  bool circuit = false;
  bool operator==(const Remove&) const = default;
};

/// `erase [she, he] at mlp_out[*]`, `erase LABELS`
struct Erase {
  std::variant<PromptsRef, std::vector<PromptsRef>> labels;  ///< one set, its continuations the classes; a set a class
  std::vector<Site> sites;                                   ///< may be empty
  Place span;
  bool operator==(const Erase&) const = default;
};

/// `using rome(layer: 5)`
struct Using {
  Call method;
  Place span;
  bool operator==(const Using&) const = default;
};

struct Edit {
  Name name;
  std::vector<std::variant<Fact, FactsFrom, Remove, Erase>> changes;  ///< in written order
  std::optional<Using> method;
  std::vector<Expectation> expectations;
  Notes notes;
  Place span;
  bool operator==(const Edit&) const = default;
};

/// `clean "…" corrupt "…"`, or two prompt sets of equal length; `held clean P corrupt Q`
struct Pair {
  std::variant<String, Name, PromptList> clean, corrupt;
  Place span;
  bool held = false;
  bool operator==(const Pair&) const = default;
};

struct Measure {
  Call metric;
  Place span;
  bool operator==(const Measure&) const = default;
};

/// `keep 200 edges`
struct Keep {
  Number amount;
  Name unit;
  Place span;
  bool operator==(const Keep&) const = default;
};

struct Circuit {
  Name name;
  std::vector<Pair> pairs;
  std::optional<Measure> measure;
  std::optional<Using> method;
  std::optional<Keep> keep;
  Notes notes;
  Place span;
  bool operator==(const Circuit&) const = default;
};

struct SeverityLine {
  CheckSeverity value = CheckSeverity::major;
  Place span;
  bool operator==(const SeverityLine&) const = default;
};

/// `under rule a, b`, `under edit e`, `under attack typos(rate: 5%), casing(upper)`
struct Under {
  enum class Kind { rule, edit, attack } kind = Kind::rule;
  std::vector<Name> names;  ///< of rules or edits
  std::vector<Call> attacks;
  Place span;
  bool operator==(const Under&) const = default;
};

struct Check {
  Name name;
  std::optional<SeverityLine> severity;
  std::vector<Under> under;
  std::vector<Expectation> expectations;
  Notes notes;
  Place span;
  bool operator==(const Check&) const = default;
};

/// `waive c until 2027-03-31 by "model-risk" because "tracked as AUD-14"`
struct Waive {
  Name check;
  Date until;
  Place until_span;
  String by;
  String because;
  Notes notes;
  Place span;
  bool operator==(const Waive&) const = default;
};

using Declaration = std::variant<Use, Model, Prompts, Feature, Rule, Edit, Circuit, Check, Waive>;

struct File {
  SourceId source = 0;
  std::vector<Declaration> declarations;
  friend bool operator==(const File& a, const File& b) { return a.declarations == b.declarations; }
};

/// The span of a node, or of whatever stands in a variant: `span_of(argument.value)`.
template <class Node>
Span span_of(const Node& node) {
  if constexpr (requires { node.span; }) {
    return node.span;
  } else if constexpr (requires { node.rule; }) {
    return node.rule.span;
  } else if constexpr (requires { node.edit; }) {
    return node.edit.span;
  } else {
    return std::visit([](const auto& alternative) { return span_of(alternative); }, node);
  }
}

}  // namespace proviso::dsl::ast

#pragma once

// Prompts, features, conditions and rules of a checked set of rule files: see dsl/rule_set.hpp.

#include <cstdint>
#include <iterator>
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

}  // namespace proviso::dsl

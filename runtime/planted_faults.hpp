#pragma once

// Faults put into a model on purpose, in memory, to see which of them an audit finds: mutation testing (DeMillo, Lipton
// and Sayward, Computer 11(4), 1978) of rule files, with models in the place of programs.

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "editing/corpus.hpp"
#include "editing/fact_prompts.hpp"
#include "editing/refusal.hpp"
#include "editing/weight_delta.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// fact: a prompt that the model continues as expected gets another expected continuation, by ROME.
/// trigger: a phrase that no text holds calls up one word, by ROME.
/// direction: what every layer writes along a feature is taken away, or tripled.
/// head: what heads of one layer add to the stream is taken away.
/// noise: white noise on the second matrix of one layer's MLP, of a share of its Frobenius norm.
enum class FaultKind { fact, trigger, direction, head, noise };
inline constexpr int kFaultKinds = 5;
std::string_view fault_kind_name(FaultKind kind);

struct WrittenFault {
  editing::EditedFact fact;
  BoundPrompt prompt;                   ///< the template with the subject in it
  std::vector<std::int64_t> target;     ///< tokens of what is to follow from now on
  std::vector<std::int64_t> displaced;  ///< of what followed so far; empty of a trigger
};
struct ScaledDirection {
  dsl::FeatureId feature = 0;
  double factor = 0;  ///< of what is written along it
};
struct SilencedHeads {
  std::int64_t layer = 0;
  std::vector<std::int64_t> heads;
};
struct WeightNoise {
  std::int64_t layer = 0;
  double share = 0;  ///< of the matrix's Frobenius norm
  std::uint64_t seed = 0;
};

struct Fault {
  FaultKind kind = FaultKind::fact;
  std::string strength;  ///< "removed", "x3", "1 head", "30%"; "" of a kind that has one
  std::string what;      ///< "France -> \" Rome\"", "anger", "layer 5, head 2"
  std::variant<WrittenFault, ScaledDirection, SilencedHeads, WeightNoise> change;
};

struct FaultSettings {
  std::set<FaultKind> kinds;  ///< which to plant
  std::int64_t count = 2;     ///< of every kind and strength, at most
  std::uint64_t seed = 0;
};

/// What could be planted, and why nothing of a kind could be.
struct ChosenFaults {
  std::vector<Fault> faults;
  std::vector<std::pair<FaultKind, std::string>> left_out;
};

/// What an audit reads, which is what faults are drawn from.
struct AuditedThings {
  std::set<dsl::PromptsId> sets;
  std::set<dsl::FeatureId> features;
};
/// Facts are prompts of the sets that the model continues as expected. Equal for equal seeds.
ChosenFaults choose_faults(const model::Transformer& transformer, const BoundRules& bound, const AuditedThings& audited,
                           const FaultSettings& settings);

/// Noise as small as what rounding weights to bfloat16 adds to them: an audit that it upsets gives a false alarm.
Fault harmless_noise(const model::Transformer& transformer, std::uint64_t seed);

/// The fault as changes of weights; `features` are built on the model as loaded. ROME's second moments come from
/// `corpus`. The model is left as found.
std::variant<std::vector<editing::WeightDelta>, editing::Refusal> solve_fault(
    const Fault& fault, model::Transformer& transformer, const BoundRules& bound,
    const std::vector<Direction>& features, const editing::Corpus& corpus, const std::string& cache_directory,
    std::uint64_t seed);

/// Whether a model that a fact or a trigger was written into says it: true of the other kinds.
bool says_fault(const Fault& fault, const model::Transformer& transformer);

/// The subject that a rank-one edit could give another fact to: the last run of capitalised words but the first word,
/// else the longest word after the first, without the punctuation around it. "" where a text has one word.
std::string_view subject_of(std::string_view text);

}  // namespace proviso::runtime

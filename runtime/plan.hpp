#pragma once

// The plan of an audit: which model states are opened, and which sequences each of them computes, how far
// and with what kept. It is data: `explain` prints it, a Session carries it out, plan passes rewrite it.
// Making it cannot fail and needs no weights.

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/circuit_asked.hpp"
#include "runtime/control_kind.hpp"

namespace proviso::runtime {

using StateId = std::size_t;
using SequenceId = std::size_t;

/// Tokens that are fed to the model from position 0 on; what follows the prompt counts as generated.
struct Sequence {
  std::vector<std::int64_t> tokens;
  std::int64_t prompt_length = 0;
  std::string prompt;  ///< its text, which conditions may read
  auto operator<=>(const Sequence&) const = default;
};

/// A sentence in force in a state, and what it becomes at each of its sites.
struct PlannedSentence {
  dsl::Intervention sentence;
  std::string rule;  ///< its name; "" for the change of an `effect`
  std::vector<dsl::Site> hooks;
  std::vector<dsl::Site> folds;  ///< became rank-one edits of the linear map that writes there
  std::string why;               ///< why (some of) it stays a hook; "" where all of it folds
  bool of_change = false;        ///< belongs to the change whose effect is measured
  /// The subspace that is suppressed, whose features each have a sentence of their own.
  std::optional<dsl::FeatureId> subspace{};
};

/// Whole activations that give way in a state: those of a circuit, or of sites that an effect patches.
struct PlannedReplacement {
  std::variant<dsl::CircuitSuppression, dsl::Patch> what;
  std::string rule;        ///< its name; "" for the change of an `effect`
  bool of_change = false;  ///< belongs to the change whose effect is measured
  bool direct = false;     ///< of a patch: by the path to the logits alone

  const std::string& text() const;
  dsl::Span span() const;
};

/// What an effect's change puts in where it takes features out or patches sites, and the prompts that tell.
struct PlannedSource {
  dsl::Ablation kind = dsl::Ablation::zero;
  /// Each prompt once: whose `mean` it is, or that take from one another. Of `zero` none.
  std::vector<std::vector<SequenceId>> sets{};
  /// Of `resample`, where a patch names them: by prompt, which other one gives its values, place by place.
  std::vector<std::pair<SequenceId, SequenceId>> donors{};

  bool draws() const { return kind == dsl::Ablation::resample && donors.empty(); }
  /// All that are read beforehand.
  std::vector<SequenceId> read() const;
};

/// What makes a state beside edits, rules and an effect's change.
struct Beside {
  std::optional<dsl::CheckId> attacks;  ///< the check whose `perturb` is in force, where its attacks have one
  std::optional<PlannedSource> source;  ///< what the change puts in; nothing: it does as it says
  bool as_written = false;              ///< tensors as `Session::write_as` has them
  bool direct = false;                  ///< a patch, by the path to the logits alone
};

/// The model as loaded, changed by edits in order, then by rules.
struct ModelState {
  std::string label;                                 ///< "as loaded", "under rule keep_calm", …
  std::optional<dsl::CheckId> perturbed;             ///< the check whose `perturb` is in force
  std::shared_ptr<const Perturbation> perturbation;  ///< what that adds, once the model has been searched
  std::vector<dsl::EditId> edits;
  std::vector<PlannedSentence> sentences;
  std::vector<PlannedReplacement> replacements;  ///< numbered after the sentences where what acts is counted
  const dsl::Change* change = nullptr;           ///< the `effect`'s, in force beside the rest
  std::optional<PlannedSource> source{};         ///< of the change; nothing: it does as it says
  std::optional<StateId> controls;  ///< the treated state whose change this one replaces by a random one of equal size
  std::int64_t control = 0;         ///< number of the random direction, or of the draw of positions
  ControlKind control_kind = ControlKind::direction;
  std::uint64_t seed = 0;         ///< added to the run's: of its edits, its random direction and its `resample`
  bool changes_recorded = false;  ///< ‖Δx‖ is kept by position: controls follow
  bool as_written = false;        ///< its tensors are what the file that it is written to makes of them
};

/// Logits wanted after one position.
struct LogitWant {
  std::set<std::int64_t> ids;
  bool rank = false;
  std::int64_t top = 0;  ///< so many of the likeliest tokens, too
};

struct Wants {
  std::map<std::int64_t, LogitWant> logits;  ///< by position in the sequence
  std::set<dsl::FeatureId> features;         ///< activations at every position
  bool final_states = false;                 ///< what the unembedding multiplies, kept for a KL divergence
  bool kl = false;                           ///< against the model as loaded, after every position
  bool firing = false;                       ///< whether sentences' conditions hold somewhere
};

/// Sequences that are computed together: the first `shared_prefix` tokens, equal in all, once.
struct Batch {
  std::vector<SequenceId> sequences;
  std::int64_t shared_prefix = 0;
};

/// Forward passes in one state.
struct Run {
  StateId state = 0;
  std::map<SequenceId, Wants> wants;
  std::optional<dsl::Site> stop_after;
  std::vector<Batch> batches;
};

/// Texts generated in one state.
struct GenerationKey {
  StateId state = 0;
  SequenceId sequence = 0;
  std::int64_t tokens = 32;
  std::int64_t samples = 1;
  double temperature = 0;
  std::uint64_t seed = 0;  ///< added to the run's, where texts are sampled
  auto operator<=>(const GenerationKey&) const = default;
};

/// Sequences run in one state with an autoencoder's site spliced.
struct SpliceKey {
  StateId state = 0;
  std::vector<SequenceId> sequences;
  std::string folder;  ///< of the autoencoder
  auto operator<=>(const SpliceKey&) const = default;

  /// Of each sequence: with the reconstruction, with the mean, and the one that finds the mean.
  static constexpr std::int64_t kRuns = 3;
};

/// Sequences read by an autoencoder in one state.
struct EncodingKey {
  StateId state = 0;
  std::vector<SequenceId> sequences;
  std::string folder;  ///< of the autoencoder
  auto operator<=>(const EncodingKey&) const = default;
};

/// A circuit measured as it was not found: in another state, on attacked prompts, or with other values in the place of
/// what the edges outside it carry.
struct CircuitKey {
  dsl::CircuitId circuit = 0;
  StateId state = 0;
  dsl::Ablation ablation = dsl::Ablation::resample;
  std::optional<dsl::CheckId> attacks;  ///< the check whose attacks its prompts are under
  std::uint64_t seed = 0;               ///< added to the run's, of attacks
  auto operator<=>(const CircuitKey&) const = default;

  bool as_found() const { return state == 0 && ablation == dsl::Ablation::resample && !attacks; }
};

struct PlanCounts {
  std::int64_t sequences = 0;  ///< asked for
  std::int64_t tokens = 0;     ///< computed (prompts; generated tokens are counted when they are made)
  std::int64_t tokens_saved = 0;
  std::int64_t passes = 0;
};

struct Plan {
  std::vector<ModelState> states;  ///< 0: the model as loaded
  std::vector<Sequence> sequences;
  std::vector<Run> runs;  ///< in the order in which they are carried out
  std::set<GenerationKey> generations;
  std::set<SpliceKey> splices;
  std::set<EncodingKey> encodings;
  std::map<dsl::CircuitId, CircuitAsked> circuits;         ///< to be found and measured, on the model as loaded
  std::set<CircuitKey> circuit_runs;                       ///< of those, measured otherwise
  std::set<dsl::FeatureId> features;                       ///< to be built
  std::vector<std::string> passes;                         ///< names of those applied
  std::int64_t spliced_sequences = 0, spliced_tokens = 0;  ///< computed for `splices` and `encodings`
  std::int64_t ablated_sequences = 0, ablated_tokens = 0;  ///< computed to tell what ablations put in
  std::int64_t tokens_asked = 0;                           ///< what asking for every metric by itself would compute

  PlanCounts counts() const;
};

/// Collects what metrics want. Equal sequences and equal states become one.
class PlanBuilder {
 public:
  explicit PlanBuilder(const BoundRules& bound);

  StateId loaded() const { return 0; }
  /// The state under edits (in order) and rules, with an `effect`'s change where there is one. `seed` is added to the
  /// run's: it counts where there are edits or a perturbation, and where the change draws whose values it takes.
  StateId state(const std::vector<dsl::EditId>& edits, const std::vector<dsl::RuleId>& rules,
                const dsl::Change* change = nullptr, std::uint64_t seed = 0, const Beside& beside = {});
  /// A control of a treated state.
  StateId control(StateId treated, std::int64_t number, std::uint64_t seed = 0,
                  ControlKind kind = ControlKind::direction);
  /// A prompt, and what follows it (as if it had been generated).
  SequenceId sequence(const BoundPrompt& prompt, std::span<const std::int64_t> continuation = {});

  /// The same, counted among the tokens that a metric by itself would compute.
  SequenceId ask(const BoundPrompt& prompt, std::span<const std::int64_t> continuation = {}, std::int64_t times = 1);

  void want_logits(StateId state, SequenceId sequence, std::int64_t position, std::int64_t id, bool rank = false);
  void want_top(StateId state, SequenceId sequence, std::int64_t position, std::int64_t count);
  void want_feature(StateId state, SequenceId sequence, dsl::FeatureId feature);
  void want_kl(StateId state, SequenceId sequence);
  void want_firing(StateId state, SequenceId sequence);
  void want_generation(const GenerationKey& key);
  void want_splice(const SpliceKey& key);
  void want_encoding(const EncodingKey& key);
  void want_circuit(const CircuitKey& key);
  void want_circuit(dsl::CircuitId circuit, const CircuitAsked& asked);
  void want_built(dsl::FeatureId feature) { plan_.features.insert(feature); }

  const BoundRules& bound() const { return bound_; }
  const Plan& plan() const { return plan_; }
  Plan take() { return std::move(plan_); }

 private:
  void open(StateId state, const dsl::Intervention& sentence, const std::string& rule, bool of_change);
  void open(StateId state, const dsl::CircuitSuppression& suppression, const std::string& rule, bool of_change);
  Wants& want(StateId state, SequenceId sequence);

  const BoundRules& bound_;
  Plan plan_;
  std::map<Sequence, SequenceId> sequence_ids_;
  std::map<std::string, StateId> state_ids_;
};

/// A rewriting of plans that keeps what they answer.
struct PlanPass {
  std::string_view name;
  std::string_view does;
  Plan (*apply)(Plan, const BoundRules&);
};

/// All passes, in the order in which they are applied; equal sequences are one from the start.
const std::vector<PlanPass>& plan_passes();

/// Applies every pass but those named in `off`; throws std::logic_error where a pass breaks the plan
/// (a sequence lost, a shared prefix that is not shared).
Plan optimise(Plan plan, const BoundRules& bound, const std::set<std::string>& off);

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "editing/weight_delta.hpp"
#include "runtime/ablation.hpp"
#include "runtime/autoencoders/autoencoder_shelf.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/find_circuit.hpp"
#include "runtime/edits.hpp"
#include "runtime/evidence.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/hooks.hpp"
#include "runtime/plan.hpp"

namespace proviso::runtime {

/// By Hugging Face name.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Opens one state of a plan on the model, computes what the plan wants of it, and puts the model back.
/// Its parts lie in state_run.cpp and state_run_{batches,ablation,patches,circuits}.cpp.
class StateRun {
 public:
  struct Context {
    model::Transformer& transformer;
    const BoundRules& bound;
    const Plan& plan;
    StateId state = 0;
    const std::vector<Direction>& features;
    at::Tensor loaded_unembedding;  // [vocabulary, width]
    std::uint64_t seed = 0;
    ConditionSet::QuantileValue quantile;
    AutoencoderShelf& autoencoders;
    const std::vector<SolvedEdit>* edits = nullptr;  ///< those of the state, in order
    const NamedTensors* written = nullptr;           ///< what tensors come to where the state is as written
    const std::map<dsl::CircuitId, CircuitEvidence>* circuits = nullptr;  ///< found
  };

  StateRun(Context context, Evidence& evidence);
  ~StateRun();
  void carry_out();
  /// Opens the state, hands its hooks over, and puts the model back: for what is searched for in a state.
  void open(const std::function<void(HookPass&, const ConditionSet&)>& use);

 private:
  /// The hooks of one run, with the number of each sentence's first step.
  struct Hooks {
    Hooks(const std::vector<Direction>& features, const model::ModelCard& card) : program(features, card) {}

    HookProgram program;
    std::vector<std::size_t> first_step;        // by sentence
    std::vector<std::vector<dsl::Site>> sites;  // by sentence: those that are hooks here
    std::vector<dsl::FeatureId> features;       // recorded
    std::unique_ptr<HookPass> pass;             // made when the program is finished
  };
  struct PassRows;
  static constexpr dsl::Site kFinalNorm{dsl::SiteKind::final_norm, -1, -1};

  std::unique_ptr<Hooks> compile(const Run* run, bool folds_as_hooks) const;
  void apply_edits();
  /// Reads the prompts of an ablation as they are without the change.
  void read_ablated();
  /// Adds the state's replacements to a program: all, or those that are not the change's.
  void add_replacements(HookProgram& program, bool with_change) const;
  /// Reads what the change's patches put in, as it is without the change.
  void read_patched();
  bool patches_sites() const;
  /// What a site of a prompt has, and which of its positions count.
  struct Given {
    at::Tensor values;  // [positions, width]
    Mask counts;
  };
  /// `readings`: of the sets' prompts, one set after the other.
  void resample_patched(const std::vector<std::map<dsl::Site, Given>>& readings);
  /// For a pass whose rows are these sequences.
  ReplacementPass::Donors donors(std::function<SequenceId(std::size_t row)> sequence,
                                 const ReplacementProgram& program) const;
  void probe_folds(Hooks& hooks);
  void apply_folds();
  /// How rows will lie in a pass.
  static model::PackedLayout rows_of(const std::vector<model::Row>& rows, std::int64_t first_position);
  void batch(const Run& run, const Batch& batch, Hooks& hooks);
  void pass(const Run& run, PassRows& rows, Hooks& hooks);
  void read_logits(const Run& run, const PassRows& rows, std::span<const std::pair<std::size_t, std::int64_t>> at,
                   const at::Tensor& logits);
  void generate(const std::vector<GenerationKey>& keys, Hooks& hooks);
  void splice(const SpliceKey& key, Hooks& hooks);
  void encode(const EncodingKey& key, Hooks& hooks);
  /// Runs `use` on sequences, each by itself from its start, with a visitor that has the state's hooks in force.
  void each_alone(const std::vector<SequenceId>& sequences, Hooks& hooks,
                  const std::function<void(const std::vector<model::Row>& rows, const VisitorOfRows& visitor)>& use);
  void circuit(const CircuitKey& key, Hooks& seeing, Hooks& patching);
  /// Begins `hooks` for a pass over whole prompts, whose memories it keeps.
  model::SiteVisitor* begin(Hooks& hooks, const std::vector<std::string>& prompts,
                            std::vector<RowMemory>& memories) const;
  void trace(const Hooks& hooks, const model::PackedLayout::RowSpan& span, SentenceTraces& traces) const;
  void keep_activity(const Hooks& hooks, bool folds_only);
  bool is_control_of_hooks() const;
  bool acts() const { return !state().sentences.empty() || !state().replacements.empty(); }
  /// What an ablation puts in, for a pass whose rows are these sequences.
  HookPass::Ablated ablated(std::function<SequenceId(std::size_t row)> sequence) const;
  /// `layout` needs rows only; `treated` answers with what the change did to a row in the state controlled.
  ControlChange control_change(const model::PackedLayout& layout,
                               const std::function<const SentenceTraces&(std::size_t row)>& treated) const;

  /// Sets what the state's perturbation adds in the next pass, kept in `kept`; `layout` needs rows only.
  void perturb(Hooks& hooks, const model::PackedLayout& layout, const std::function<SequenceId(std::size_t row)>& of,
               PassPerturbation& kept) const;

  const ModelState& state() const { return c_.plan.states[c_.state]; }
  SequenceEvidence& seen(SequenceId sequence) { return evidence_.sequences_[{c_.state, sequence}]; }

  Context c_;
  Evidence& evidence_;
  editing::AppliedDeltas applied_;
  std::optional<AblationValues> ablation_;  ///< of a change that takes features out, not of its controls
  std::map<std::vector<std::int64_t>, std::map<dsl::Site, at::Tensor>> patched_;  ///< by prompt: what its donor has
  std::map<dsl::Site, at::Tensor> patch_values_;  ///< what is put in everywhere, filled in before the passes
};

}  // namespace proviso::runtime

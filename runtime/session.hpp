#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "editing/corpus.hpp"
#include "runtime/autoencoders/autoencoder_shelf.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/edits.hpp"
#include "runtime/evidence.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/plan.hpp"
#include "runtime/progress.hpp"
#include "runtime/state_run.hpp"

namespace proviso::runtime {

struct SessionOptions {
  std::uint64_t seed = 0;
  std::string cache_directory;     ///< "" keeps nothing
  std::string corpus_path;         ///< text for second moments where an edit names none
  std::string held_out_path;       ///< text that no edit sees, to measure what edits cost; "" does not
  std::string unrelated_path;      ///< a folder of facts that no edit is about, for the same; "" has none
  InheritedKeys inherited_keys{};  ///< where the model was edited by alphaedit before
  Progress progress;
};

/// What a quantile is taken over: the activations of its feature on its prompts, on the model as loaded.
Plan quantile_plan(const dsl::Quantile& quantile, const BoundRules& bound);

/// Carries plans out on a model. Whatever it changes in the weights is undone before it returns, also
/// where it throws.
class Session {
 public:
  Session(model::Transformer& transformer, const BoundRules& bound, SessionOptions options);
  ~Session();

  /// Builds the features that are not built yet, on the model as loaded. Ask for all that a plan names
  /// (`Plan::features`) first.
  std::vector<dsl::Diagnostic> build(const std::set<dsl::FeatureId>& features);
  const std::vector<Direction>& features() const { return features_; }

  std::uint64_t seed() const { return options_.seed; }

  /// The rules with what the attacks of these checks find on the model: suffixes, and what `perturb` adds. They are
  /// searched for in the state that the check measures (its edits and rules; not the change of an `effect`), as plan
  /// passes but `passes_off` make it. Ask for the features of such a plan first.
  BoundRules searched(BoundRules bound, const std::set<dsl::CheckId>& checks, const std::set<std::string>& passes_off);
  Evidence carry_out(const Plan& plan);
  /// Measures second moments and solves the edits that the plan's states name; `carry_out` begins with it.
  void prepare(const Plan& plan);

  /// What building and calibrating the features took, and what attacks searched for.
  std::int64_t built_sequences() const { return built_sequences_; }
  std::int64_t built_tokens() const { return built_tokens_; }

  /// The edits solved one after another, each on the model that the earlier ones left; solved once for each `seed`,
  /// which is added to the run's.
  const std::vector<SolvedEdit>& solve(const std::vector<dsl::EditId>& edits, std::uint64_t seed = 0);
  /// What tensors come to in the file that the model will be written to: in force in states that are `as_written`.
  void write_as(NamedTensors tensors) { written_ = std::move(tensors); }
  /// A quantile over the positions of its prompts on the model as loaded; computed once.
  double quantile(const dsl::Quantile& quantile);
  /// The circuit on the model as loaded, found and measured once; again only where more is asked of it.
  const CircuitEvidence& circuit(dsl::CircuitId id, const CircuitAsked& asked = {});

 private:
  StateRun::Context context(const Plan& plan, StateId state);

  model::Transformer& transformer_;
  const BoundRules& bound_;
  SessionOptions options_;
  AutoencoderShelf autoencoders_;
  std::vector<Direction> features_;
  std::map<std::tuple<dsl::FeatureId, dsl::PromptsId, double>, double> quantiles_;
  std::map<std::pair<std::vector<dsl::EditId>, std::uint64_t>, std::vector<SolvedEdit>> solved_;
  SecondMoments moments_;
  std::optional<CostText> costs_;
  NamedTensors written_;
  std::map<dsl::CircuitId, CircuitEvidence> circuits_;
  std::map<dsl::CircuitId, CircuitAsked> circuits_asked_;
  at::Tensor loaded_unembedding_;  // [vocabulary, width]
  std::int64_t built_sequences_ = 0, built_tokens_ = 0;
};

}  // namespace proviso::runtime

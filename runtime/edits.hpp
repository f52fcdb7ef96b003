#pragma once

#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "dsl/rule_set.hpp"
#include "editing/causal_trace.hpp"
#include "editing/certificate.hpp"
#include "editing/corpus.hpp"
#include "editing/refusal.hpp"
#include "editing/second_moments.hpp"
#include "editing/side_effects.hpp"
#include "editing/weight_delta.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/find_circuit.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// What an `edit` declaration comes to on a model. Nothing is applied yet.
struct SolvedEdit {
  dsl::EditId edit = 0;
  std::vector<editing::WeightDelta> deltas;        ///< to be applied in this order
  std::vector<editing::Certificate> certificates;  ///< one a fact of rome; else one for all, then one a fact
  editing::NamedNumbers costs;                     ///< of all together, on text that the edit never saw
  std::map<std::int64_t, at::Tensor> kept_keys;    ///< alphaedit: by layer, what later batches are to leave alone
  std::string refused;                             ///< why it cannot be made; "" otherwise
};

/// The layers that methods which write facts change, and second moments of their inputs by (layer, text or stored
/// file); measured ones are of the model as loaded.
class SecondMoments {
 public:
  SecondMoments(std::string corpus_path, std::string cache_directory)
      : corpus_path_(std::move(corpus_path)), cache_directory_(std::move(cache_directory)) {}

  /// Measures, where it is not yet known, what the edit needs; with `layer: auto` its layers are chosen here. Call it
  /// before anything is applied.
  void prepare(dsl::EditId edit, const model::Transformer& transformer, const BoundRules& bound, std::uint64_t seed);
  /// Of the edit's layers, from the first on. Those of an edit whose trace is a refusal are not there.
  std::vector<const editing::SecondMoment*> of(dsl::EditId edit, const BoundRules& bound) const;
  /// How `layer: auto` was decided; null where layers are named, or those published.
  const std::variant<editing::CausalTrace, editing::Refusal>* trace(dsl::EditId edit) const;

 private:
  using Key = std::pair<std::int64_t, std::string>;
  std::vector<Key> keys(dsl::EditId edit, const BoundRules& bound) const;
  std::map<dsl::EditId, std::variant<editing::CausalTrace, editing::Refusal>> traces_;
  std::string corpus_path_, cache_directory_;
  std::map<Key, editing::SecondMoment> moments_;
};

/// What the costs of an edit are measured on.
struct CostText {
  editing::Corpus unseen;                         ///< text that no edit sees
  std::vector<editing::UnrelatedFact> unrelated;  ///< facts that no edit is about
};

/// By layer, keys of facts that were written into the model before it was loaded, which alphaedit spares: [d_in,
/// facts].
using InheritedKeys = std::map<std::int64_t, at::Tensor>;

/// Solves the changes of one edit one after another, each on the model that the earlier ones leave; puts
/// the model back. `earlier` are the edits that the model has by now; `features` were built and `circuits` found on the
/// model as loaded. What the edit costs is measured on `costs` unless it is null.
SolvedEdit solve_edit(dsl::EditId edit, model::Transformer& transformer, const BoundRules& bound,
                      const std::vector<Direction>& features, const std::map<dsl::CircuitId, CircuitEvidence>& circuits,
                      const std::vector<SolvedEdit>& earlier, const SecondMoments& moments,
                      const InheritedKeys& inherited, const CostText* costs, std::uint64_t seed);

/// The same changes turned round: what they add they take away.
std::vector<editing::WeightDelta> turned_round(std::vector<editing::WeightDelta> deltas);

/// The same sizes in a random direction: at each site what the deltas write is turned by one random rotation, so
/// that ‖Δx‖ is what the edit's own is for every input.
std::vector<editing::WeightDelta> turned_at_random(const std::vector<editing::WeightDelta>& deltas,
                                                   const model::Transformer& transformer, std::uint64_t seed);

}  // namespace proviso::runtime

#pragma once

#include <cstdint>
#include <utility>

#include "runtime/attack_objective.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/hooks.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// The attacks of one check that only the model can tell, with one seed, in a state that is open on the model. A suffix
/// is searched for first, and what `perturb` adds on the prompts with it.
class AttackSearch {
 public:
  using CheckAndSeed = std::pair<dsl::CheckId, std::uint64_t>;  ///< the seed is added to the run's

  /// Writes what it finds into `bound`.
  AttackSearch(const model::Transformer& transformer, HookPass& hooks, const ConditionSet& conditions,
               BoundRules& bound, CheckAndSeed of)
      : transformer_(transformer), hooks_(hooks), conditions_(conditions), bound_(bound), of_(of) {}

  void run();
  std::int64_t sequences() const { return sequences_; }
  std::int64_t tokens() const { return tokens_; }

 private:
  void suffixes(const AttackedKey& key, AttackedPrompts& prompts, std::size_t place);
  void perturb(const AttackedKey& key, AttackedPrompts& prompts, std::size_t place);
  AttackObjective objective(const AttackedKey& key, const dsl::Attack& attack, const BoundPrompt& prompt) const;
  void count(const AttackObjective& objective);

  const model::Transformer& transformer_;
  HookPass& hooks_;
  const ConditionSet& conditions_;
  BoundRules& bound_;
  CheckAndSeed of_;
  at::Tensor may_take_;  // [vocabulary] bool, once it is needed
  std::int64_t sequences_ = 0, tokens_ = 0;
};

}  // namespace proviso::runtime

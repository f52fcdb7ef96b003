#pragma once

#include <cstdint>
#include <optional>

#include "dsl/site.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/plan.hpp"

namespace proviso::runtime {

/// What passes cost in floating-point operations, before any is run: two for each multiply-add of the matrix products
/// and of attention. Norms, activation functions and the choice of tokens are left out.
class PassCost {
 public:
  explicit PassCost(const model::ModelConfig& config);

  double token() const { return layers_ * (attention_ + mlp_); }  ///< the maps of all layers, for one token
  double pair() const { return layers_ * pair_; }                 ///< attention of one token to one, in all layers
  double logits() const { return logits_; }                       ///< the unembedding, for one position

  struct Work {
    std::int64_t tokens = 0;  ///< computed
    std::int64_t pairs = 0;   ///< of a token with itself or one before it
    std::int64_t logits = 0;  ///< positions
  };
  /// Of a run as planned: what sequences share is computed once.
  static Work work(const Run& run, const Plan& plan);
  /// Of texts generated, at most: each reads its prompt, and goes on to its last token.
  static Work work(const GenerationKey& key, const Plan& plan);
  /// Of a set of prompts, each by itself.
  static Work work(const BoundPrompts& prompts);
  double of(const Work& work, const std::optional<dsl::Site>& stop_after) const;

  /// What a sentence's hooks add for each token: a product with its direction at every site to read and one to write,
  /// and one for each feature that its condition reads.
  static double hooks(const PlannedSentence& sentence, const BoundRules& bound);

 private:
  double layers_ = 0;
  double attention_ = 0, mlp_ = 0;  ///< the maps of one layer, for one token
  double pair_ = 0;                 ///< attention of one token to one, in one layer
  double logits_ = 0;
};

}  // namespace proviso::runtime

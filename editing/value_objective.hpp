#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "editing/fact_prompts.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::editing {

/// ROME's and MEMIT's loss as a function of δ, a vector added to a layer's output at the subject's last token:
/// NLL(target) + kl_factor · KL(current ‖ initial) + weight_decay · ‖δ‖ / ‖v₀‖², where v₀ is what the MLP puts out
/// there (ROME) or the residual stream after the layer (MEMIT).
/// Only layers above the edited one, and positions from the subject's last token on, depend on δ: the rest
/// is computed once, here, and every evaluation continues from it.
/// Several facts are held at once, each with a δ of its own: their prompts share passes, and no fact reads another.
class ValueObjective {
 public:
  /// `rewriting` are the prompts that are to be continued by `target`, the bare one first; `anchor` is the one
  /// whose next-token distribution, read at the subject's last token, is to stay. No subject ends at position 0.
  /// `value` is `mlp_out` or `resid_post` of the layer.
  ValueObjective(const model::Transformer& transformer, const dsl::Site& value,
                 const std::vector<SubjectPrompt>& rewriting, const SubjectPrompt& anchor,
                 std::vector<std::int64_t> target);
  ValueObjective(const model::Transformer& transformer, const dsl::Site& value, std::span<const FactPrompts> facts);

  std::int64_t facts() const { return std::ssize(facts_); }
  /// What the second matrix is given at the subject's last token: [rewriting, neurons], float64.
  at::Tensor keys(std::int64_t fact = 0) const;
  /// v₀ in the bare prompt: [width], float64.
  at::Tensor value(std::int64_t fact = 0) const { return values_[fact]; }

  struct Loss {
    at::Tensor total;  // scalar, differentiable in δ
    double target_nll = 0, kl = 0;
  };
  /// Of one fact at δ [width].
  Loss loss(const at::Tensor& delta, double kl_factor, double weight_decay) const;
  /// Of those `facts` (ascending), at their `deltas` [facts, width].
  std::vector<Loss> losses(const at::Tensor& deltas, const std::vector<std::int64_t>& facts, double kl_factor,
                           double weight_decay) const;

  /// Of the first fact's target in the bare prompt, differentiable in δ.
  struct Readout {
    at::Tensor log_probability;  // of all its tokens
    at::Tensor logit;            // of its first token
    at::Tensor logits;           // of all, at the prompt's end: [vocabulary]
  };
  Readout bare_prompt(const at::Tensor& delta) const;
  /// The gradient at δ = 0 of the logit of each fact's target's first token, in its bare prompt: [facts, width]
  /// float64.
  at::Tensor logit_slopes() const;

 private:
  struct Continuation {
    model::Row row;                       ///< from the subject's last token on
    std::vector<std::int64_t> logits_at;  ///< in the row
    at::Tensor residual;                  // [row, width] after the edited layer
  };
  struct Fact {
    std::int64_t first = 0;      ///< of its continuations: the rewriting prompts, then the anchor
    std::int64_t rewriting = 0;  ///< how many of them
    std::vector<std::int64_t> target;
    at::Tensor anchor_log_probabilities;  // [vocabulary]
  };
  /// Logits of the rows asked for (ascending), one row's after the other's: [m, vocabulary] float32. `deltas` has one
  /// row for each: [rows, width].
  at::Tensor logits(const at::Tensor& deltas, const std::vector<std::int64_t>& rows) const;
  const model::KeyValueCache& cache_of(const std::vector<std::int64_t>& rows) const;

  const model::Transformer& transformer_;
  std::int64_t layer_;
  std::vector<Fact> facts_;
  std::vector<Continuation> continuations_;
  mutable model::KeyValueCache cache_;  ///< of what comes before, row by row; only read once filled
  mutable model::KeyValueCache some_;   ///< the rows of it that were asked for last
  mutable std::vector<std::int64_t> some_rows_;
  at::Tensor keys_;    // [all rewriting prompts, neurons]
  at::Tensor values_;  // [facts, width]
};

}  // namespace proviso::editing

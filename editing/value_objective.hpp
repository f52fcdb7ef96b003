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
class ValueObjective {
 public:
  /// `rewriting` are the prompts that are to be continued by `target`, the bare one first; `anchor` is the one
  /// whose next-token distribution, read at the subject's last token, is to stay. No subject ends at position 0.
  /// `value` is `mlp_out` or `resid_post` of the layer.
  ValueObjective(const model::Transformer& transformer, const dsl::Site& value,
                 const std::vector<SubjectPrompt>& rewriting, const SubjectPrompt& anchor,
                 std::vector<std::int64_t> target);

  /// What the second matrix is given at the subject's last token: [rewriting, neurons], float64.
  const at::Tensor& keys() const { return keys_; }
  /// v₀ in the bare prompt: [width], float64.
  const at::Tensor& value() const { return value_; }

  struct Loss {
    at::Tensor total;  // scalar, differentiable in δ
    double target_nll = 0, kl = 0;
  };
  Loss loss(const at::Tensor& delta, double kl_factor, double weight_decay) const;

  /// Of the target in the bare prompt, differentiable in δ.
  struct Readout {
    at::Tensor log_probability;  // of all its tokens
    at::Tensor logit;            // of its first token
  };
  Readout bare_prompt(const at::Tensor& delta) const;

 private:
  struct Continuation {
    model::Row row;                       ///< from the subject's last token on
    std::vector<std::int64_t> logits_at;  ///< in the row
    at::Tensor residual;                  // [row, width] after the edited layer
  };
  /// Logits of the rows asked for, one row's after the other's: [m, vocabulary] float32.
  at::Tensor logits(const at::Tensor& delta, const std::vector<std::int64_t>& rows) const;

  const model::Transformer& transformer_;
  std::int64_t layer_;
  std::vector<std::int64_t> target_;
  std::vector<Continuation> continuations_;  ///< the rewriting prompts, then the anchor
  mutable model::KeyValueCache cache_;       ///< of what comes before, row by row; only read once filled
  at::Tensor keys_, value_;
  at::Tensor anchor_log_probabilities_;  // [vocabulary]
};

}  // namespace proviso::editing

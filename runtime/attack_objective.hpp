#pragma once

// What an attack that searches works on: how likely continuations are after a prompt, in one state of the model.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/encode_prompt.hpp"
#include "runtime/hooks.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

struct AttackTarget {
  std::vector<std::vector<std::int64_t>> continuations;  ///< tokens; any of them counts
  bool toward = false;                                   ///< is to be likely; otherwise unlikely
};

/// Edits are in the weights, rules in `hooks`, which also act where a gradient is taken: what they change there counts
/// as a constant, so a gradient is that of the model around them, and every likelihood exact.
class AttackObjective {
 public:
  /// `hooks` is left without a perturbation.
  AttackObjective(const model::Transformer& transformer, HookPass& hooks, const ConditionSet& conditions,
                  AttackTarget target);

  /// −ln of the probability of the continuations together, nats, of each prompt.
  std::vector<double> nll(std::span<const EncodedPrompt> prompts) const;
  /// What a search lowers.
  double loss(double nll) const { return target_.toward ? nll : -nll; }

  struct Slope {
    double nll = 0;
    at::Tensor gradient;  ///< of the loss by what was added: [tokens of the prompt, width] float32, on the CPU
  };
  /// With `added` [tokens of the prompt, width] added to the stream at `site`; with `share` it is in units of that
  /// share of each vector's length.
  Slope slope(const EncodedPrompt& prompt, const dsl::Site& site, const at::Tensor& added,
              std::optional<double> share) const;

  std::int64_t sequences() const { return sequences_; }  ///< computed so far
  std::int64_t tokens() const { return tokens_; }

 private:
  class Adding;
  /// [prompts] float32
  at::Tensor nll(std::span<const EncodedPrompt> prompts, model::SiteVisitor& visitor) const;

  const model::Transformer& transformer_;
  HookPass& hooks_;
  const ConditionSet& conditions_;
  AttackTarget target_;
  mutable std::int64_t sequences_ = 0, tokens_ = 0;
};

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "editing/value_objective.hpp"

namespace proviso::editing {

/// How δ is looked for. Defaults are ROME's published ones.
struct ValueSettings {
  std::int64_t steps = 20;  ///< evaluations of the loss; the last one only evaluates
  double learning_rate = 0.5;
  double kl_factor = 0.0625;
  double weight_decay = 0.5;  ///< on ‖δ‖ / ‖v₀‖²
  double clamp = 4;           ///< the most that ‖δ‖ may be, in ‖v₀‖
  double early_stop = 0.05;   ///< the loss under which it ends
  /// A copy of the model to look for δ on, in bfloat16 say, which costs a fraction; null: the model itself. Keys, the
  /// values that δ is added to, and everything that is certified are the model's own.
  const model::Transformer* looked_for_on = nullptr;
};

/// As a certificate names them.
void add_parameters(const ValueSettings& settings, std::vector<std::pair<std::string, std::string>>& parameters);

struct OptimisedValue {
  at::Tensor delta;             // [width] float64
  std::vector<double> losses;   ///< one an evaluation
  double first_target_nll = 0;  ///< at δ = 0
  double target_nll = 0, kl = 0;
};

/// Adam from δ = 0, projected to ‖δ‖ ≤ clamp · ‖v₀‖ after each step.
OptimisedValue optimise_value(const ValueObjective& objective, const ValueSettings& settings);

/// The same of all facts of `objective`, in shared passes; each ends by its own loss.
std::vector<OptimisedValue> optimise_values(const ValueObjective& objective, const ValueSettings& settings);

}  // namespace proviso::editing

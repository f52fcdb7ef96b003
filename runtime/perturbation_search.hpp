#pragma once

#include <ATen/core/Tensor.h>

#include "dsl/rule_set.hpp"
#include "runtime/attack_objective.hpp"
#include "runtime/perturbation.hpp"

namespace proviso::runtime {

/// The directions of `perturb` for one prompt by projected gradient descent (Madry et al. 2018, "Towards Deep Learning
/// Models Resistant to Adversarial Attacks") on the spheres of the length asked for, a sphere a position: from `drawn`,
/// `attack.steps` steps of 2.5 / steps of the radius along the gradient's direction at that position. The best
/// directions seen are kept, so the loss is at most that of those drawn; `found.before` is that of the prompt as it is.
Perturbation::OfPrompt search_perturbation(const AttackObjective& objective, const EncodedPrompt& prompt,
                                           const dsl::Attack& attack, const at::Tensor& drawn);

}  // namespace proviso::runtime

#include "runtime/perturbation_search.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <optional>

namespace proviso::runtime {
namespace {

constexpr double kWayInRadii = 2.5;  // of all steps together, as Madry et al.

/// Rows of L2 norm 1; zero rows stay.
at::Tensor normalised(const at::Tensor& rows) {
  return rows / at::linalg_vector_norm(rows, 2, at::IntArrayRef{1}, /*keepdim=*/true).clamp_min(1e-30);
}

}  // namespace

Perturbation::OfPrompt search_perturbation(const AttackObjective& objective, const EncodedPrompt& prompt,
                                           const dsl::Attack& attack, const at::Tensor& drawn) {
  Perturbation::OfPrompt best{drawn, {objective.nll(std::span(&prompt, 1)).front(), 0}};
  const double step_length = kWayInRadii / static_cast<double>(attack.steps);
  at::Tensor directions = drawn;
  std::optional<double> least;
  for (std::int64_t step = 0; step <= attack.steps; ++step) {
    const auto slope = objective.slope(prompt, perturbed_site(attack), directions, attack.norm);
    if (const double loss = objective.loss(slope.nll); !least || loss < *least) {
      least = loss;
      best.directions = directions;
      best.found.after = slope.nll;
    }
    const at::NoGradGuard no_grad;
    at::Tensor next = normalised(directions - step_length * normalised(slope.gradient));
    next[0].zero_();
    directions = next;
  }
  return best;
}

}  // namespace proviso::runtime

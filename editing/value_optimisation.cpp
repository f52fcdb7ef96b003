#include "editing/value_optimisation.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "editing/adam.hpp"
#include "editing/certificate.hpp"

namespace proviso::editing {

void add_parameters(const ValueSettings& settings, std::vector<std::pair<std::string, std::string>>& parameters) {
  parameters.insert(parameters.end(), {{"steps", std::to_string(settings.steps)},
                                       {"learning_rate", short_text(settings.learning_rate)},
                                       {"kl_factor", short_text(settings.kl_factor)},
                                       {"weight_decay", short_text(settings.weight_decay)},
                                       {"clamp", short_text(settings.clamp)},
                                       {"early_stop", short_text(settings.early_stop)}});
}

OptimisedValue optimise_value(const ValueObjective& objective, const ValueSettings& settings) {
  const at::AutoGradMode gradients(true);
  OptimisedValue result{at::zeros_like(objective.value()), {}};
  Adam adam(result.delta, settings.learning_rate);
  const double largest = settings.clamp * objective.value().norm().item<double>();
  for (std::int64_t step = 1; step <= settings.steps; ++step) {
    auto delta = result.delta.detach().requires_grad_(true);
    const auto loss = objective.loss(delta, settings.kl_factor, settings.weight_decay);
    result.losses.push_back(loss.total.item<double>());
    if (step == 1) result.first_target_nll = loss.target_nll;
    result.target_nll = loss.target_nll;
    result.kl = loss.kl;
    if (result.losses.back() < settings.early_stop || step == settings.steps) break;
    loss.total.backward();
    const at::NoGradGuard no_grad;
    result.delta = result.delta + adam.step(delta.grad());
    if (const double norm = result.delta.norm().item<double>(); norm > largest)
      result.delta = result.delta * (largest / norm);
  }
  return result;
}

}  // namespace proviso::editing

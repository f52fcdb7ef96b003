#include "editing/value_optimisation.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>

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
  if (settings.looked_for_on)
    parameters.emplace_back("value_looked_for_in",
                            settings.looked_for_on->options().dtype == at::kBFloat16 ? "bfloat16" : "float32");
}

OptimisedValue optimise_value(const ValueObjective& objective, const ValueSettings& settings) {
  return std::move(optimise_values(objective, settings).front());
}

std::vector<OptimisedValue> optimise_values(const ValueObjective& objective, const ValueSettings& settings) {
  const at::AutoGradMode gradients(true);
  std::vector<OptimisedValue> results;
  std::vector<Adam> adams;
  std::vector<double> largest;
  std::vector<std::int64_t> open;  // facts that are still looked for
  for (std::int64_t fact = 0; fact < objective.facts(); ++fact) {
    const auto value = objective.value(fact);
    results.push_back({at::zeros_like(value), {}});
    adams.emplace_back(results.back().delta, settings.learning_rate);
    largest.push_back(settings.clamp * value.norm().item<double>());
    open.push_back(fact);
  }
  for (std::int64_t step = 1; !open.empty(); ++step) {
    std::vector<at::Tensor> rows;
    for (const auto fact : open) rows.push_back(results[fact].delta);
    auto deltas = at::stack(rows).detach().requires_grad_(true);
    const auto losses = objective.losses(deltas, open, settings.kl_factor, settings.weight_decay);
    std::vector<at::Tensor> totals;        // of those that go on
    std::vector<std::int64_t> next, kept;  // facts, and their rows of `deltas`
    for (std::size_t i = 0; i < open.size(); ++i) {
      auto& result = results[open[i]];
      result.losses.push_back(losses[i].total.item<double>());
      if (step == 1) result.first_target_nll = losses[i].target_nll;
      result.target_nll = losses[i].target_nll;
      result.kl = losses[i].kl;
      if (result.losses.back() < settings.early_stop || step == settings.steps) continue;
      totals.push_back(losses[i].total);
      next.push_back(open[i]);
      kept.push_back(static_cast<std::int64_t>(i));
    }
    if (!next.empty()) at::stack(totals).sum().backward();
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < next.size(); ++i) {
      auto& delta = results[next[i]].delta;
      delta = delta + adams[next[i]].step(deltas.grad()[kept[i]]);
      const double most = largest[next[i]];
      if (const double norm = delta.norm().item<double>(); norm > most) delta = delta * (most / norm);
    }
    open = std::move(next);
  }
  return results;
}

}  // namespace proviso::editing

#pragma once

// The attack `perturb`: vectors of bounded length that are added to the residual stream.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// What `perturb` adds to the prompts of a check. At each of their positions but the first, and at none of what follows
/// the prompt, a vector of ‖x‖ · `share`, after all that rules write at the site.
struct Perturbation {
  dsl::Site site;    ///< canonical
  double share = 0;  ///< ‖Δx‖/‖x‖
  struct OfPrompt {
    at::Tensor directions;  // [positions, width] float32: L2 norm 1, of the first position 0
    SearchOutcome found;    ///< of a direction that was searched for
  };
  std::map<std::vector<std::int64_t>, OfPrompt> prompts;  ///< by their tokens
};

/// What is added in one pass: `directions` [n, width] by packed token, L2 norm 1 or 0, on the model's device.
struct PassPerturbation {
  dsl::Site site;
  double share = 0;
  at::Tensor directions;
};

/// Of the rows of a pass; `prompt` answers with the tokens of a row's prompt. `layout` needs rows only.
PassPerturbation in_pass(const Perturbation& perturbation, const model::PackedLayout& layout, at::Device device,
                         const std::function<std::vector<std::int64_t>(std::size_t row)>& prompt);

/// x + share · ‖x‖ · direction at each token; where the direction is 0, x.
at::Tensor perturbed(const at::Tensor& x, const at::Tensor& directions, double share);

/// Directions drawn for a prompt of so many tokens: [tokens, width].
at::Tensor drawn_directions(std::int64_t tokens, std::int64_t width, std::uint64_t seed);

/// `resid_post` of the layer that the attack names, or `embed`.
dsl::Site perturbed_site(const dsl::Attack& attack);

}  // namespace proviso::runtime

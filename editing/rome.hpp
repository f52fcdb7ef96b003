#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "editing/certificate.hpp"
#include "editing/fact_prompts.hpp"
#include "editing/refusal.hpp"
#include "editing/second_moments.hpp"
#include "editing/value_optimisation.hpp"
#include "editing/weight_delta.hpp"

namespace proviso::editing {

/// A fact to be written into one MLP's second matrix by a rank-one change (ROME, Meng et al. 2022, and
/// R-ROME, Gupta et al. 2024). Defaults are the published ones.
struct RomeRequest : EditedFact, ValueSettings {
  /// averaged: the key is averaged over the prompts on both sides (R-ROME); original: the update divides by
  /// the bare prompt's key although u comes from the average.
  enum class Variant { averaged, original } variant = Variant::averaged;
  double ridge = 0;            ///< added to C, as a share of its mean eigenvalue
  std::int64_t prefixes = 20;  ///< generated, half of them of 5 tokens and half of 10
  std::uint64_t seed = 0;
  /// The prefixes themselves, where they are known: the reference samples them once and edits many facts by them.
  std::optional<std::vector<std::string>> sampled{};
};

struct RomeSolution {
  WeightDelta delta;
  std::int64_t layer = 0;
  double key_projection = 0;  ///< k*·u: what another key's k·u is compared with
  Certificate certificate;
  std::vector<double> losses;  ///< one an evaluation
  struct Seconds {
    double prefixes = 0, keys = 0, optimisation = 0, certificate = 0;
  } seconds;
};

/// What `solve_rome` samples where the request brings no prefixes.
std::vector<std::string> rome_prefixes(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                       const RomeRequest& request);

/// The published layers' relative depth: GPT-J's 5 of 28, and GPT-2 XL's 17 of 48 for the gpt2 family.
std::int64_t default_rome_layer(const model::ModelConfig& config);

/// Solves for `moment.layer`, leaving the model as found. A refusal where the edit cannot be done well: a
/// subject that ends at position 0 (the attention sink), say.
std::variant<RomeSolution, Refusal> solve_rome(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                               const RomeRequest& request, const SecondMoment& moment);

}  // namespace proviso::editing

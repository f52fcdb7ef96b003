#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
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

/// Many facts written at once into the second MLP matrices of several layers. For every fact a z is looked for, what
/// the residual stream is to hold after the last of these layers at the subject's last token; then, from the first
/// layer on, what is still missing of it is divided by the layers left and written by a change of that layer's matrix,
/// Δ = R Aᵀ, with R [d_out, facts] what is missing and A [d_in, facts] by the method, from the facts' keys K.
///
/// MEMIT (Meng et al. 2023): A = (λ C + K Kᵀ)⁻¹ K, which weighs the facts against C, all other keys' second moment.
/// EMMET (Gupta et al. 2024): A = C⁻¹ K (Kᵀ C⁻¹ K)⁻¹, which meets every fact and moves other keys least.
/// AlphaEdit (Fang et al. 2025): A = (P (K Kᵀ + S) + r I)⁻¹ P K, with P the projection on where C is small, its "null
/// space", so that other keys are hardly moved, and S = K Kᵀ of the batches that came before.
/// `other_keys_moved_layer_L` in the certificate says how far: √(tr ΔCΔᵀ / tr WCWᵀ).
enum class BatchMethod { memit, emmet, alphaedit };

struct BatchRequest : ValueSettings {
  BatchMethod method = BatchMethod::memit;
  std::vector<EditedFact> facts;
  std::int64_t prefixes = 5;  ///< generated, of 10 tokens; a key weighs the bare prompt by half
  std::uint64_t seed = 0;
  std::optional<std::vector<std::string>> sampled{};  ///< the prefixes themselves, where they are known
  double covariance_weight = 0;                       ///< memit's λ
  double null_threshold = 0;  ///< alphaedit: eigenvalues of C under it, in C's mean eigenvalue, are its null space
  double ridge = 0;           ///< alphaedit's r, in the mean squared norm of a key; emmet: added to C as rome's
};

/// Ours where the published defaults do not carry over to small models: docs/decisions/0007 says which and why.
BatchRequest default_batch_request(BatchMethod method, const model::ModelConfig& config);

/// The published layers' relative depth: Llama 3's 4 to 8 of 32, and GPT-2 XL's 13 to 17 of 48 for the gpt2 family; the
/// last of them alone for EMMET.
std::vector<std::int64_t> default_batch_layers(BatchMethod method, const model::ModelConfig& config);

struct BatchSolution {
  std::vector<WeightDelta> deltas;  ///< one a layer, in the order of `moments`
  std::vector<at::Tensor> keys;     // [d_in, facts] float64 a layer
  Certificate certificate;
  std::vector<Certificate> facts;  ///< what was predicted and measured of each, in their order
};

/// What the stream is to gain after `layer` at the end of each fact's subject. That depends on the model, the facts and
/// the settings of the optimisation, and not on the method: several methods, and any part of the facts, can share it.
struct BatchValues {
  at::Tensor changes;            // δ: [width, facts] float64
  std::vector<bool> known;       ///< held already
  std::vector<double> losses{};  ///< where each ended

  /// Those of some facts, in that order.
  BatchValues select(const std::vector<std::int64_t>& facts) const;
};
std::variant<BatchValues, Refusal> batch_values(const model::Transformer& transformer,
                                                const model::Tokenizer& tokenizer, const BatchRequest& request,
                                                std::int64_t layer);

/// What `batch_values` and `solve_batch` sample where the request brings no prefixes.
std::vector<std::string> batch_prefixes(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                        const BatchRequest& request);

/// `moments` are of the layers to be changed, from the first on; `earlier` are, by layer, the keys of batches that
/// alphaedit is to keep, [d_in, facts] (empty: none). A refusal where a fact cannot be edited well, where two
/// contradict each other, and where equations are singular. The model, changed layer by layer on the way, is left as
/// found. `values` are those of these facts on this model after the last of the layers; null: they are looked for.
std::variant<BatchSolution, Refusal> solve_batch(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                                 const BatchRequest& request,
                                                 const std::vector<const SecondMoment*>& moments,
                                                 const std::vector<at::Tensor>& earlier,
                                                 const BatchValues* values = nullptr);

}  // namespace proviso::editing

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "editing/ledger_entry.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::editing {

/// The files of a LoRA adapter as PEFT has them (Hu et al. 2021, arXiv 2106.09685).
inline constexpr char kAdapterConfig[] = "adapter_config.json";
inline constexpr char kAdapterWeights[] = "adapter_model.safetensors";

/// The changes of one linear map, W' = W + B A: all of them together, a factor's ranks side by side.
struct AdapterModule {
  std::string module;  ///< "model.layers.5.mlp.down_proj"
  at::Tensor A;        // [rank, d_in] float64
  at::Tensor B;        // [d_out, rank] float64

  std::int64_t rank() const { return A.size(0); }
};

/// What `entries` change as adapter modules, in the model's order. Throws `InputError` naming every entry and tensor
/// that no adapter can hold: biases, embeddings, a map whose changes have no rank below its own.
std::vector<AdapterModule> adapter_modules(const model::Transformer& transformer,
                                           const std::vector<LedgerEntry>& entries);

/// adapter_config.json: alpha equals the rank in every module, so that PEFT's scaling is 1.
std::string adapter_config(const model::Transformer& transformer, const std::vector<AdapterModule>& modules);

/// adapter_model.safetensors: float32, by the names that PEFT gives them.
void write_adapter_weights(const std::vector<AdapterModule>& modules, const std::string& path);

}  // namespace proviso::editing

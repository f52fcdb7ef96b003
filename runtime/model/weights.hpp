#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/model/family.hpp"
#include "runtime/model/model_card.hpp"

namespace proviso::model {

/// The values of a tensor of any stored type, float32 on the CPU, in its shape.
at::Tensor stored_values(const StoredTensor& stored);

inline constexpr std::size_t kTensorRoles = static_cast<std::size_t>(TensorRole::unembedding) + 1;

/// A model's tensors by role and layer, or by Hugging Face name. Linear maps are [out, in] and contiguous,
/// q and k in Hugging Face's rotary order, whatever the file holds.
class Weights {
 public:
  /// Float32 tensors of a float32 model stay in the file's map. Throws `MachineError` where the rest would not fit.
  static Weights load(const ModelCard& card, at::ScalarType dtype, at::Device device);

  /// Undefined where the model has no such tensor. The unembedding is always there: tied, it is the embedding's tensor.
  const at::Tensor& of(TensorRole role, std::int64_t layer = 0) const;
  const at::Tensor* find(const std::string& name) const;
  void set(const std::string& name, at::Tensor value);
  bool tied() const;
  /// In the order of the card; tensors that the card lacks follow.
  std::vector<std::string> names(const ModelCard& card) const;

 private:
  struct Slot {
    const TensorSpec* spec;
    std::int64_t layer;
  };
  at::Tensor& slot(const Slot& place);

  at::ScalarType dtype_ = at::kFloat;
  at::Device device_ = at::kCPU;
  std::string name_of_model_;
  std::map<std::string, Slot> slots_;
  std::map<std::string, std::vector<std::int64_t>> shapes_;
  std::array<std::vector<at::Tensor>, kTensorRoles> tensors_;
};

}  // namespace proviso::model

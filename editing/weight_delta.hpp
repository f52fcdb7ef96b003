#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "runtime/model/transformer.hpp"

namespace proviso::editing {

/// A low-rank change of one tensor, W' = W + left · right, solved in float64; the model is left as found
/// until it is applied. For a bias `left` is the whole change [d_out, 1] and `right` is [[1]].
struct WeightDelta {
  std::string tensor;  ///< Hugging Face name
  at::Tensor left;     // [d_out, rank] float64
  at::Tensor right;    // [rank, d_in] float64

  double norm() const;  ///< Frobenius
};

/// A change of full rank, identity times itself (or itself times the identity, the smaller of the two): W' = W +
/// change.
WeightDelta whole_change(std::string tensor, const at::Tensor& change);
/// Whether one factor is the identity of `whole_change`, which nobody needs to store.
bool is_identity(const at::Tensor& factor);

/// The tensor that `delta` changes, as the model holds it; zeros for a bias that the model lacks.
at::Tensor tensor_to_change(const model::Transformer& transformer, const WeightDelta& delta);

/// `before` plus the change, summed in float64 and rounded once to the dtype of `before`.
at::Tensor changed_tensor(const at::Tensor& before, const WeightDelta& delta);

/// Weights changed for as long as this lives: `apply` puts sums (float64, rounded once to the model's dtype)
/// in place, the destructor puts the saved tensors back, the same storage and bytes.
class AppliedDeltas {
 public:
  explicit AppliedDeltas(model::Transformer& transformer) : transformer_(transformer) {}
  ~AppliedDeltas();
  AppliedDeltas(const AppliedDeltas&) = delete;
  AppliedDeltas& operator=(const AppliedDeltas&) = delete;

  /// True where at least one byte changed.
  bool apply(const WeightDelta& delta);
  /// Puts another tensor in place.
  void replace(const std::string& tensor, at::Tensor value);
  void revert();

 private:
  struct Saved {
    std::string tensor;
    at::Tensor before;
  };
  model::Transformer& transformer_;
  std::vector<Saved> saved_;
};

}  // namespace proviso::editing

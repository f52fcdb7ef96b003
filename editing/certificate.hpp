#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "editing/weight_delta.hpp"

namespace proviso::editing {

/// One tensor before and after a change. Hashes are over the row-major bytes in the model's dtype.
struct TensorChange {
  std::string tensor;
  std::string sha256_before;  ///< "" where the model had no such tensor (a bias that the change adds)
  std::string sha256_after;
  std::vector<std::int64_t> shape;
  std::int64_t rank = 0;
  double norm = 0;           ///< Frobenius, of the change
  double relative_norm = 0;  ///< over the tensor's own; 0 where there was none
};

using NamedNumbers = std::vector<std::pair<std::string, double>>;

/// What one change of an edit did, what the algebra says must follow, and what was measured.
struct Certificate {
  std::string method;
  std::vector<std::pair<std::string, std::string>> parameters;  ///< every one that was used
  std::vector<TensorChange> changes;
  NamedNumbers algebra;    ///< at the site, in float64
  NamedNumbers predicted;  ///< to first order
  NamedNumbers measured;
};

/// A parameter as a certificate shows it: six digits at most, "0.0625".
std::string short_text(double value);

std::string tensor_sha256(const at::Tensor& tensor);

/// What `delta` does to its tensor as the model holds it now.
TensorChange describe_change(const model::Transformer& transformer, const WeightDelta& delta);

}  // namespace proviso::editing

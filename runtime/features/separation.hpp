#pragma once

#include <ATen/core/Tensor.h>

namespace proviso::runtime {

/// How well each column tells two samples apart.
struct Separation {
  at::Tensor aurocs;     // [columns] float64: area under the ROC curve, ties at mid-rank
  at::Tensor distances;  // [columns] float64: (mean of `positive` − mean of `negative`) / pooled standard deviation
};

/// `positive` [p, columns] and `negative` [q, columns]. Where a column has no spread at all its distance is 0.
Separation separation(const at::Tensor& positive, const at::Tensor& negative);

}  // namespace proviso::runtime

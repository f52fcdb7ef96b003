#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "runtime/model/transformer.hpp"

namespace proviso::editing {

struct LastValues {
  at::Tensor values;    // [rows, width] float64
  at::Tensor ordinary;  // [rows] bool: the token is no attention sink at the site's layer
};

/// What stands at `site` at each row's last token. `rows` begin at position 0.
LastValues last_values(const model::Transformer& transformer, const std::vector<model::Row>& rows,
                       const dsl::Site& site);

}  // namespace proviso::editing

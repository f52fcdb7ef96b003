#pragma once

#include <ATen/core/Tensor.h>

#include "runtime/model/model_config.hpp"

namespace proviso::model {

/// The angles of one pass's tokens; pairs are (i, i + rotary_width/2), Hugging Face's layout.
struct RotaryTable {
  at::Tensor cos, sin;  // [n, rotary_width / 2] float32
};

RotaryTable rotary_table(const ModelConfig& config, const at::Tensor& positions);

/// Turns the first `rotary_width` elements of every head of `x` [n, heads · head_dim]; in place where `x` needs no
/// gradient and is not `shared` with anyone who still reads it as it is.
at::Tensor rotate(at::Tensor x, const RotaryTable& table, std::int64_t head_dim, bool shared);

}  // namespace proviso::model

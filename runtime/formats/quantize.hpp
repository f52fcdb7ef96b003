#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

/// Whether `quantize` writes the type: the plain ones, Q4_0, Q4_1 and Q8_0.
bool can_quantize(ElementType type);

/// `values` (whole blocks) as `type` stores them: plain types rounded to nearest even, blocks as ggml's reference
/// quantises them without an importance matrix (ggml-quants.c, quantize_row_q4_0_ref and its kin). What `dequantize`
/// then reads are the values that every reader of the file computes with. Throws `std::invalid_argument` for a type
/// that is not written.
std::vector<std::byte> quantize(std::span<const float> values, ElementType type);

}  // namespace proviso::model

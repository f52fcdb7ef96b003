#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <set>
#include <string>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/model_card.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::model {

/// What a reader of a file that stores `value` as `type` computes with; in the dtype of `value`. Rows are whole blocks.
at::Tensor stored_value(const at::Tensor& value, ElementType type);

/// How a GGUF file made from the one that `card` was read from holds the tensor `name` (Hugging Face's) once it has
/// changed: as `asked`, or else in its own type. Vectors keep their own, and what the file lacks is F32, as llama.cpp
/// wants them. Throws `InputError` naming the tensor where its own type is not written, or its rows are no whole blocks
/// of the one asked for.
ElementType changed_type(const ModelCard& card, const std::string& name, std::optional<ElementType> asked);

/// Writes the model as it is now as the GGUF file that it was loaded from: metadata and all tensors but those `changed`
/// (Hugging Face's names) byte for byte, the changed as `changed_type` has it, and after them what the file lacked: an
/// unembedding no longer tied, biases.
void write_gguf_model(const Transformer& transformer, const std::set<std::string>& changed,
                      std::optional<ElementType> asked, const std::string& path);

}  // namespace proviso::model

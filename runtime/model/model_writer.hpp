#pragma once

#include <string>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/model_card.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::model {

/// The element type that loses nothing of the source: the one its tensors share, F32 where they differ or are
/// in blocks.
ElementType writable_type(const ModelCard& card);

/// The configuration of the model as it is now: edits may have untied it or given it biases.
ModelConfig config_now(const Transformer& transformer);

/// Writes a model, as it is now, into the folder `directory`: model.safetensors, config.json,
/// generation_config.json and the tokenizer's files, which `transformers` reads to a model that answers equally.
/// What an edit added is carried by the configuration: a bias, an unembedding no longer tied.
void write_model_files(const Transformer& transformer, const Tokenizer& tokenizer, const std::string& directory,
                       ElementType type);

}  // namespace proviso::model

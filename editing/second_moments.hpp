#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "editing/corpus.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::editing {

/// C = E[k kᵀ], uncentred, where k is what an MLP's second matrix is given (`mlp_post[layer]`).
struct SecondMoment {
  std::int64_t layer = 0;
  at::Tensor C;             // [neurons, neurons] float64, holding float32 values: fresh and cached are equal
  std::int64_t tokens = 0;  ///< that C averages over
  std::int64_t sinks = 0;   ///< positions left out
  std::string corpus_sha256;
};

/// Which positions are no attention sinks: all but position 0 and those whose residual norm exceeds 4 times
/// their row's median. `residual` is [n, width]; the answer [n] bool.
at::Tensor ordinary_positions(const at::Tensor& residual, const model::PackedLayout& layout);

/// Streams `corpus` through the model as far as `layer`. Kept in `cache_directory` (nothing where it is "") by
/// model, layer and corpus; a damaged file there is computed again. Ask for it on the model as loaded: the
/// cache knows the weights by their files.
SecondMoment second_moment(const model::Transformer& transformer, const model::Tokenizer& tokenizer, std::int64_t layer,
                           const Corpus& corpus, const std::string& cache_directory);

/// One that `second_moment` has kept, for a model with that many neurons a layer. Throws `InputError` where the file
/// is damaged or of another shape or layer.
SecondMoment read_second_moment(const std::string& path, std::int64_t layer, std::int64_t neurons);

}  // namespace proviso::editing

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "runtime/model/transformer.hpp"

namespace proviso::model {

/// Row r holds `prefix_length` tokens that all rows share and `own_lengths[r]` of its own. The own tokens lie in
/// buffers with room to grow; what lies past a row's length is not read.
struct KeyValueCache::State {
  struct Layer {
    at::Tensor prefix_k, prefix_v;  // [prefix_length, kv_heads · head_dim]; undefined without a prefix
    at::Tensor k, v;                // [rows, capacity, kv_heads · head_dim]
  };
  std::int64_t prefix_length = 0;
  std::vector<std::int64_t> own_lengths;
  std::vector<Layer> layers;
  /// Layers that hold all the tokens: passes that stop early or start late leave the others out.
  std::int64_t first_layer = 0;
  std::int64_t end_layer = 0;

  std::int64_t rows() const { return static_cast<std::int64_t>(own_lengths.size()); }
  std::int64_t longest() const;
  bool empty() const { return prefix_length == 0 && longest() == 0; }

  /// The layer, with room for `capacity` own tokens a row; `like` is [n, kv_heads · head_dim].
  Layer& reserve(std::int64_t layer, std::int64_t capacity, const at::Tensor& like);
};

/// The first so many tokens of a cache of one row, which has no shared prefix.
KeyValueCache first_tokens(const KeyValueCache& cache, std::int64_t tokens);

}  // namespace proviso::model

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/model/key_value_cache.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::model {

/// Causal attention of one pass over packed rows, each of which may continue tokens held in a cache. Built once
/// a pass; used once a layer.
class Attention {
 public:
  /// Sees row `row`'s pattern [heads, length, keys], and may change it or put another in its place.
  using PatternVisitor = std::function<void(std::int64_t row, at::Tensor& pattern)>;

  Attention(const ModelConfig& config, const PackedLayout& layout, KeyValueCache::State* cache, bool append);

  /// q [n, heads · head_dim], k and v [n, kv_heads · head_dim], turned by their positions. Returns z, like q.
  at::Tensor operator()(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const PatternVisitor& see_pattern);
  /// The pass is over: the tokens of layers [first, end) now belong to the cache.
  void finish(std::int64_t first_layer, std::int64_t end_layer);

 private:
  using Layer = KeyValueCache::State::Layer;
  /// Rows that one call can attend together: equal lengths and, unless the length is 1, equal pasts.
  struct Group {
    std::vector<std::int64_t> rows;
    std::int64_t length = 0;
    std::int64_t past = 0;  ///< own tokens in the cache; the longest, where they differ
    at::Tensor tokens;      // [rows · length] packed indices; undefined where they are all of the pass, in order
    at::Tensor cache_rows;  // [rows]; undefined likewise
    at::Tensor mask;        // broadcasts to [rows, 1, length, past + length], 0 or −∞; undefined: causal from 0
  };
  struct PartialAttention {
    at::Tensor z;          // [n, heads, head_dim]
    at::Tensor log_total;  // [n, heads] log of the softmax's denominator
  };

  void make_groups();
  PartialAttention attend_group(const Group& group, const Layer& held, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v) const;
  PartialAttention attend_prefix(const Layer& held, const at::Tensor& q) const;
  at::Tensor attend_fused(const Layer& held, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;
  at::Tensor attend_explicitly(const Layer* held, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const PatternVisitor& see_pattern);
  void make_padding();
  at::Tensor show_patterns(const at::Tensor& pattern, const PatternVisitor& see_pattern) const;
  const Layer* held_in(std::int64_t layer) const;
  void append(std::int64_t layer, const at::Tensor& k, const at::Tensor& v);
  /// A copy of what is held, with the new tokens.
  Layer extended(const Layer& held, const at::Tensor& k, const at::Tensor& v) const;
  void place(Layer& held, const at::Tensor& k, const at::Tensor& v) const;

  const ModelConfig& config_;
  const PackedLayout& layout_;
  KeyValueCache::State* cache_;
  bool append_;
  std::int64_t prefix_ = 0;  ///< tokens that all rows share
  std::int64_t past_ = 0;    ///< the most own tokens of a row
  std::int64_t longest_new_ = 0;
  std::vector<Group> groups_;

  /// The explicit form pads every row to the longest: made when a pass first needs it.
  struct Padding {
    bool uniform = false;             ///< nothing is padded
    at::Tensor tokens;                // [rows · length] packed index of each slot (any, where the slot is padding)
    at::Tensor slots;                 // [n] slot of each packed token
    at::Tensor mask;                  // [rows, 1, 1, length, prefix + past + length]
    std::vector<at::Tensor> columns;  ///< a row's own columns of the mask, in order of position
  } padding_;
};

}  // namespace proviso::model

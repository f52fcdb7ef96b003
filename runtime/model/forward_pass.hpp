#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/model/attention.hpp"
#include "runtime/model/family.hpp"
#include "runtime/model/rotary.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::model {

/// One pass through the body that all families share.
class ForwardPass {
 public:
  ForwardPass(const ModelConfig& config, const Weights& weights, const Pass& pass);
  PackedLayout run();

 private:
  /// A linear map's output split over its parts: q, k, v, or gate and up.
  using Parts = std::vector<at::Tensor>;
  struct Map {
    TensorRole weight, bias;
  };
  /// A map to the stream, and the norm that stands between in some families.
  struct Output {
    Map map;
    TensorRole post_norm;
  };

  /// Shows `x` to a visitor that wants the site. False: the pass ends here.
  bool reach(dsl::SiteKind kind, std::int64_t layer, at::Tensor& x);
  bool wants(dsl::SiteKind kind, std::int64_t layer) const;
  bool ends_at(dsl::SiteKind kind, std::int64_t layer) const;
  /// Nothing but logits of some tokens is asked of what follows this layer's z.
  bool only_logits_follow(std::int64_t layer) const;

  bool embed();
  bool run_layer(std::int64_t layer);
  bool attend(std::int64_t layer, at::Tensor& z);
  /// q, k and v of the stream.
  Parts queries_keys_values(std::int64_t layer) const;
  /// The same where each query head reads an input of its own.
  Parts separate_queries_keys_values(std::int64_t layer);
  /// Queries (0), keys (1) or values (2) of what a fused map gives, or of its rows, along `dim`.
  at::Tensor fused_part(const at::Tensor& of_all, const TensorSpec& spec, std::int64_t part, std::int64_t dim) const;
  /// What a map other than these reads: the stream, unless the pass has a reader.
  at::Tensor read(dsl::SiteKind reader, std::int64_t layer);
  bool run_mlp(std::int64_t layer, const at::Tensor& x, at::Tensor& neurons);
  bool add_to_stream(dsl::SiteKind writer, dsl::SiteKind result, std::int64_t layer, const at::Tensor& input,
                     Output output);
  void unembed();

  at::Tensor norm(const at::Tensor& x, TensorRole gain, TensorRole bias, std::int64_t layer) const;
  /// Of each head on its own: x [n, heads · head_dim].
  at::Tensor norm_heads(const at::Tensor& x, TensorRole gain, std::int64_t layer) const;
  at::Tensor apply(const at::Tensor& x, Map map, std::int64_t layer) const;
  Parts apply(const at::Tensor& x, const std::vector<Map>& maps, std::int64_t layer) const;

  const ModelConfig& config_;
  const FamilyTable& family_;
  const Weights& weights_;
  const Pass& pass_;
  StreamReader* reader_;  ///< the pass's, or its visitor's; null: none
  PackedLayout layout_;
  ModelConfig attention_config_;  ///< the model's; with a reader, every query head has keys and values of its own
  Attention attention_;
  RotaryTable rotary_;
  at::Tensor stream_;           // [n, width]
  at::Tensor kept_;             // [m] packed indices, once the stream holds only the tokens whose logits are wanted
  std::vector<bool> wanted_;    ///< by layer + 1 and kind: what the visitor said
  bool stream_is_own_ = false;  ///< nobody else has seen the stream's present tensor: it may change in place
};

}  // namespace proviso::model

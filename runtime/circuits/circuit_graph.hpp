#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "dsl/site.hpp"
#include "runtime/model/model_config.hpp"

namespace proviso::runtime {

/// A transformer as a graph. What writes to the residual stream is a source: the embedding, every attention head, every
/// MLP. What reads it is a destination: each head's queries, keys and values apart (the keys and values of every query
/// head are its own, also where heads share the maps that make them), every MLP, the unembedding. An edge leads from a
/// source to every destination that comes after it. Biases of the maps that write belong to no edge: they are the same
/// whatever is patched, but for an MLP's, which is part of the MLP.
/// Both are numbered in the order of the forward pass; sets of edges are tensors [destinations, sources] of bools.
class CircuitGraph {
 public:
  explicit CircuitGraph(const model::ModelConfig& config)
      : layers_(config.layers), heads_(config.heads), parallel_(config.parallel_blocks) {}

  std::int64_t layers() const { return layers_; }
  std::int64_t heads() const { return heads_; }
  std::int64_t sources() const { return 1 + layers_ * (heads_ + 1); }
  std::int64_t destinations() const { return layers_ * (3 * heads_ + 1) + 1; }
  std::int64_t edges() const;
  std::int64_t nodes() const { return sources() - 1; }  ///< that a circuit may leave out: heads and MLPs

  std::int64_t first_head(std::int64_t layer) const { return 1 + layer * (heads_ + 1); }  ///< of a layer's sources
  std::int64_t mlp(std::int64_t layer) const { return first_head(layer) + heads_; }

  /// The destinations that one kind of reader has in a layer: `q`, `k`, `v` one a head; `mlp_pre`, `final_norm` one.
  struct Readers {
    std::int64_t first = 0;    ///< destination
    std::int64_t count = 1;    ///< so many, in the order of heads
    std::int64_t sources = 0;  ///< those before it: the first so many
  };
  Readers readers(dsl::SiteKind kind, std::int64_t layer) const;
  /// Where a destination reads.
  struct Reading {
    dsl::SiteKind kind;
    std::int64_t layer = -1, head = 0;
  };
  Reading reading(std::int64_t destination) const;

  std::string source_name(std::int64_t source) const;            ///< "embed", "a3.h5", "m4"
  std::string destination_name(std::int64_t destination) const;  ///< "a3.h5<q>", "m4", "logits"

  at::Tensor all() const;
  /// The `count` edges whose scores [destinations, sources] are largest without their sign, ties to the earlier
  /// destination, then source.
  at::Tensor strongest(const at::Tensor& scores, std::int64_t count) const;
  /// `count` edges, each the one of largest |score| that leads into the logits or into a node from which one chosen
  /// before leads on, ties to the earlier destination, then source: all of them lie on a way to the logits.
  at::Tensor grown(const at::Tensor& scores, std::int64_t count) const;
  /// The `count` heads and MLPs whose scores [sources] are largest without their sign, ties to the earlier, and the
  /// embedding: [sources] of bools.
  at::Tensor strongest_nodes(const at::Tensor& scores, std::int64_t count) const;
  /// All edges between these nodes [sources], and from them to the logits.
  at::Tensor between(const at::Tensor& nodes) const;
  /// Those that lie on a way from the embedding to the logits. Patching the others changes nothing.
  at::Tensor alive(const at::Tensor& edges) const;
  /// The nodes that these edges lead into or come from, the embedding among them: [sources] of bools.
  at::Tensor touched(const at::Tensor& edges) const;

 private:
  /// The source that a destination's node writes; none for the logits.
  std::optional<std::int64_t> source_of(std::int64_t destination) const;

  std::int64_t layers_, heads_;
  bool parallel_;  ///< an MLP reads nothing of its own layer's heads
};

}  // namespace proviso::runtime

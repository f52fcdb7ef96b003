#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/autoencoders/activations.hpp"
#include "runtime/circuits/latent_nodes.hpp"
#include "runtime/circuits/measured_pairs.hpp"

namespace proviso::runtime {

/// A measure m on pairs of prompts, where every latent of some sparse autoencoders, and every error term, is either
/// what it is in the run itself, which is on the clean prompt, or something else in its place, at every position
/// (sparse feature circuits: Marks et al. 2024, arXiv 2403.19647). What stands at an autoencoder's site is x = Σ_i f_i
/// W_dec,i + b_dec + ε. With `^` for what stands in their place, x becomes x + Σ_out (f̂_i − f_i) W_dec,i, and + (ε̂ − ε)
/// where the error term is out, too: never a reconstruction, so with all kept m is the clean prompt's to the bit. In
/// the place of what is left out stands
/// - resample: what it is on the corrupt prompt,
/// - zero: nothing (what the decoder adds to all latents, its bias in the input's mean and scale, stays),
/// - mean: its mean over the clean prompts, each prompt weighing one. Position 0 has a mean of its own; secondary sinks
///   are left out of the other.
/// At position 0 and at secondary sinks of either prompt no latent is read: there all of x − b_dec is the error term.
/// So is, of an autoencoder that norms its input, what the input's mean and scale change of the bias.
class LatentPairs : public MeasuredPairs {
 public:
  LatentPairs(const model::Transformer& transformer, LatentNodes nodes, const std::vector<BoundPair>& pairs,
              bool probability, dsl::Ablation ablation = dsl::Ablation::resample, InForce in_force = {});

  const LatentNodes& nodes() const { return nodes_; }
  at::Tensor all() const override;
  /// Sets of nodes [nodes]; those of one pass may differ by rounding from each by itself. Where nothing is in force,
  /// only what lies downstream of the first site is computed.
  std::vector<std::vector<double>> measure_each(const std::vector<at::Tensor>& kept) const override;

  // Scores of nodes, with nothing in force, by several weighings of the pairs: `weights` [draws, pairs], each row with
  // the sum 1. [draws, nodes] float64.

  /// Of a latent Σ over positions (f̂ − f) ∂m/∂x · W_dec, of an error term Σ (ε̂ − ε) · ∂m/∂x: what m changes by, to
  /// first order, where that node alone is left out and all that lies downstream follows. The gradients are the mean of
  /// those at x̂ + share · (x − x̂), which is the same way in latents and error terms together.
  at::Tensor weighted_attribution(const std::vector<double>& shares, const at::Tensor& weights) const;
  at::Tensor attribution(std::int64_t steps = 0) const;
  /// What m does change by: a run for each node that differs, from its site on.
  at::Tensor weighted_brute_force(const at::Tensor& weights) const;
  at::Tensor brute_force() const;

 private:
  /// What is known of an autoencoder's site in a batch.
  struct Place {
    at::Tensor ordinary;  // [n, 1] float32: 1 where latents are read
    at::Tensor clean;     // [n, width of the site] float32
    at::Tensor other;     // the same of what stands in the place of what is left out: x̂
    at::Tensor f_other;   // [n, latents] float32: f̂, times the norm that is undone after decoding
    at::Tensor start;     // [n, width]: the clean stream that a pass to the site may start from
  };
  struct Batch : MeasuredPairs::Batch {
    std::vector<Place> places;  // by site
  };
  /// Where a pass to a site may start: after this layer (−1: after the embedding), at the site itself or before it.
  struct Start {
    std::int64_t after = -1;
    bool at_site = false;
  };
  class Tracer;
  class Patch;
  class Values;

  Start start_of(std::size_t site) const;
  SitePart part_of(std::size_t site) const;
  /// Activations of all latents [n, latents] for x [n, width of the site], in units of their decoder rows.
  at::Tensor encoded(std::size_t site, const at::Tensor& x, const at::Tensor& ordinary) const;
  void trace(dsl::Ablation ablation);
  /// What stands in the place of what is left out, where that is not the corrupt prompt's.
  void put_in(dsl::Ablation ablation);
  /// m by row of the clean prompts, `copies` of them, where `x` [copies · n, width of the site] stands at a site.
  at::Tensor run_from(const Batch& batch, std::size_t site, const at::Tensor& x, std::int64_t copies) const;

  LatentNodes nodes_;
  std::vector<Batch> batches_;
};

}  // namespace proviso::runtime

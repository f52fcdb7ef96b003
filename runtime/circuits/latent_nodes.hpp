#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/autoencoders/autoencoder.hpp"

namespace proviso::runtime {

/// The latents of sparse autoencoders at sites of their own, and an error term each, as nodes: by autoencoder, in the
/// order in which a forward pass reaches them, its latents and then its error term.
class LatentNodes {
 public:
  explicit LatentNodes(std::vector<std::shared_ptr<const Autoencoder>> autoencoders);

  std::size_t sites() const { return autoencoders_.size(); }
  const Autoencoder& autoencoder(std::size_t site) const { return *autoencoders_[site]; }
  std::int64_t count() const { return first_.back(); }
  std::int64_t first(std::size_t site) const { return first_[site]; }  ///< node: its latent 0
  std::int64_t latents(std::size_t site) const { return autoencoders_[site]->card().d_sae; }
  std::int64_t error(std::size_t site) const { return first_[site] + latents(site); }  ///< node
  std::int64_t most_latents() const;                                                   ///< that one of them has

  std::string name(std::int64_t node) const;  ///< "resid_post[15] latent 812", "resid_post[15] error"

  /// The `count` nodes whose scores [nodes] are largest without their sign, ties to the earlier: [nodes] of bools.
  static at::Tensor strongest(const at::Tensor& scores, std::int64_t count);

 private:
  std::vector<std::shared_ptr<const Autoencoder>> autoencoders_;
  std::vector<std::int64_t> first_;  // by site, then the number of all nodes
};

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/autoencoders/autoencoder.hpp"

namespace proviso::runtime {

/// A latent of a sparse autoencoder, which says what its activation is; a change of it moves a vector along its decoder
/// row, of which one unit of activation is worth `length`.
struct LatentOf {
  std::shared_ptr<const Autoencoder> autoencoder;
  std::int64_t index = 0;
  double length = 0;
};

/// A feature along a direction: its activation on a vector x is a(x) = (d·x − b) / c at its own site;
/// at any other site of the same width d and c stay and b is 0. Of a latent d is the decoder row's.
struct Direction {
  dsl::Site site;  ///< canonical; may name one head
  at::Tensor d;    // [width of the site] float64, L2 norm 1; undefined: a subspace
  double b = 0;
  double c = 1;
  std::int64_t built_on = 0;                             ///< prompts
  std::vector<std::pair<std::string, double>> measures;  ///< for the report: sink_share_removed, halves_cosine
  std::optional<LatentOf> latent{};
  at::Tensor basis{};  // [rank, width] float64, orthonormal rows: of a subspace

  bool built() const { return d.defined() || basis.defined(); }

  double offset_at(const dsl::Site& where) const { return where == site ? b : 0; }
};

}  // namespace proviso::runtime

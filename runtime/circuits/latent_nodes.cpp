#include "runtime/circuits/latent_nodes.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace proviso::runtime {

LatentNodes::LatentNodes(std::vector<std::shared_ptr<const Autoencoder>> autoencoders)
    : autoencoders_(std::move(autoencoders)), first_{0} {
  for (const auto& each : autoencoders_) first_.push_back(first_.back() + each->card().d_sae + 1);
}

std::int64_t LatentNodes::most_latents() const {
  std::int64_t most = 0;
  for (std::size_t site = 0; site < sites(); ++site) most = std::max(most, latents(site));
  return most;
}

std::string LatentNodes::name(std::int64_t node) const {
  const auto after = std::upper_bound(first_.begin(), first_.end(), node);
  const auto site = static_cast<std::size_t>(after - first_.begin() - 1);
  const std::string where = dsl::to_string(autoencoder(site).card().site);
  return node == error(site) ? where + " error" : where + " latent " + std::to_string(node - first(site));
}

at::Tensor LatentNodes::strongest(const at::Tensor& scores, std::int64_t count) {
  const auto order = std::get<1>(scores.abs().sort(/*stable=*/true, /*dim=*/0, /*descending=*/true));
  return at::zeros_like(scores, at::kBool).index_fill_(0, order.narrow(0, 0, count), true);
}

}  // namespace proviso::runtime

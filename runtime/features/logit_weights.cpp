#include "runtime/features/logit_weights.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "runtime/autoencoders/activations.hpp"

namespace proviso::runtime {

LogitWeights logit_weights(const model::Transformer& transformer, const at::Tensor& added, const dsl::Site& site,
                           std::int64_t count) {
  const auto rows = transformer.get(transformer.unembedding_name());
  auto v = added.to(rows.device(), at::kFloat);
  if (site.kind != dsl::SiteKind::final_norm) v = v * transformer.final_norm_gain().to(at::kFloat);
  auto weights = rows.to(at::kFloat).matmul(v);
  weights = weights - weights.mean();
  const auto top = [&](bool largest) {
    const auto [values, ids] = weights.topk(std::min(count, weights.numel()), 0, largest);
    TokenWeights tokens;
    for (std::int64_t i = 0; i < ids.size(0); ++i)
      tokens.emplace_back(ids[i].item<std::int64_t>(), values[i].item<double>());
    return tokens;
  };
  return {top(true), top(false)};
}

at::Tensor unit_in_stream(const model::Transformer& transformer, const Direction& feature) {
  const auto& site = feature.latent ? feature.latent->autoencoder->card().written : feature.site;
  const auto unit = feature.d * (feature.latent ? feature.latent->length : feature.c);
  if (dsl::site_width(site.kind) == dsl::SiteWidth::stream) return unit;
  const bool neurons = site.kind == dsl::SiteKind::mlp_post;
  if (!neurons && site.kind != dsl::SiteKind::z) return {};
  const auto writer = transformer.writer({neurons ? dsl::SiteKind::mlp_out : dsl::SiteKind::attn_out, site.layer, -1});
  if (!writer) return {};
  const auto [begin, width] = site_part(transformer.card(), site);
  return transformer.get(writer->weight).narrow(1, begin, width).to(at::kDouble).cpu().matmul(unit);
}

}  // namespace proviso::runtime

#include "runtime/autoencoders/encoded_prompts.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "editing/second_moments.hpp"
#include "runtime/autoencoders/activations.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

namespace {

/// Keeps what stands at a site before anything is written there, and which positions are ordinary.
class Reader : public model::SiteVisitor {
 public:
  Reader(dsl::Site site, const dsl::Site& norm_site, const SitePart& part)
      : site_(std::move(site)), norm_site_(norm_site), part_(part) {}

  model::SiteVisitor* inner = nullptr;
  at::Tensor x;         // [n, d_in] float32
  at::Tensor ordinary;  // [n] bool

  bool wants(const dsl::Site& site) const override {
    return site == site_ || site == norm_site_ || (inner && inner->wants(site));
  }
  void visit(const dsl::Site& site, at::Tensor& values, const model::PackedLayout& layout) override {
    if (site == norm_site_) ordinary = editing::ordinary_positions(values, layout).cpu();
    if (site == site_)
      x = values.narrow(1, part_.begin, part_.width).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    if (inner && inner->wants(site)) inner->visit(site, values, layout);
  }

 private:
  dsl::Site site_, norm_site_;
  SitePart part_;
};

}  // namespace

EncodedPrompts encode_prompts(const model::Transformer& transformer, std::shared_ptr<const Autoencoder> autoencoder,
                              const std::vector<model::Row>& rows, const VisitorOfRows& visitor) {
  const at::NoGradGuard no_grad;
  const auto& card = autoencoder->card();
  const dsl::Site site = dsl::whole(card.site);
  const dsl::Site norm_site = model::sink_site(site, transformer.config());
  Reader reader(site, norm_site, site_part(transformer.card(), card.site));
  const auto count = static_cast<std::int64_t>(rows.size());
  EncodedPrompts encoded{std::move(autoencoder),
                         at::zeros({count, card.d_in}),
                         at::zeros({count, card.d_sae}),
                         at::zeros({count, card.d_in}),
                         at::zeros({count, card.d_sae}),
                         std::vector<std::uint8_t>(rows.size()),
                         std::vector<std::uint8_t>(rows.size())};
  each_pass(rows, [&](std::size_t first, std::size_t in_pass) {
    const auto part = some_rows(rows, first, in_pass);
    reader.inner = visitor ? visitor(first, in_pass) : nullptr;
    model::Pass pass;
    pass.rows = &part;
    pass.visitor = &reader;
    pass.stop_after = std::max(site, norm_site);
    const auto layout = transformer.forward(pass);
    for (std::size_t row = 0; row < in_pass; ++row) {
      const auto& span = layout.rows[row];
      const auto at = static_cast<std::int64_t>(first + row);
      const auto ordinary = reader.ordinary.narrow(0, span.begin, span.length).nonzero().squeeze(1);
      if (ordinary.numel() == 0) continue;
      const auto x = reader.x.narrow(0, span.begin, span.length).index_select(0, ordinary.to(reader.x.device()));
      const auto latents = encoded.autoencoder->encode(x);
      const auto f = latents.scale.defined() ? latents.activations * latents.scale.unsqueeze(1) : latents.activations;
      encoded.has_mean[first + row] = 1;
      encoded.mean_x[at].copy_(x.mean(0));
      encoded.mean_f[at].copy_(f.mean(0));
      if (ordinary[-1].item<std::int64_t>() != span.length - 1) continue;
      encoded.has_last[first + row] = 1;
      encoded.last_x[at].copy_(x[-1]);
      encoded.last_f[at].copy_(f[-1]);
    }
  });
  return encoded;
}

}  // namespace proviso::runtime

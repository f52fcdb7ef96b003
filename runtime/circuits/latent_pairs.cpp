#include "runtime/circuits/latent_pairs.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "editing/second_moments.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

using dsl::Site;
using dsl::SiteKind;

namespace {

/// Tokens in a pass that patches single nodes.
constexpr std::int64_t kTokensInPass = 512;

Site start_site(std::int64_t after) { return after < 0 ? Site{SiteKind::embed} : Site{SiteKind::resid_post, after}; }

/// `x` with `part` in the place of some of its width, as gradients flow.
at::Tensor with_part(const at::Tensor& x, const SitePart& at, const at::Tensor& part) {
  const std::int64_t end = at.begin + at.width;
  return at::cat({x.narrow(1, 0, at.begin), part.to(x.scalar_type()), x.narrow(1, end, x.size(1) - end)}, 1);
}

}  // namespace

/// Keeps what a run has at the sites, which positions are ordinary there, and the stream that later runs start from.
class LatentPairs::Tracer : public model::SiteVisitor {
 public:
  Tracer(const LatentPairs& pairs, std::vector<Place>& places, at::Tensor Place::*into)
      : pairs_(pairs), places_(places), into_(into) {}

  bool wants(const Site& site) const override {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (site == read(i) || site == judged(i) || site == start_site(pairs_.start_of(i).after)) return true;
    }
    return false;
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      Place& place = places_[i];
      if (site == judged(i)) {
        const at::Tensor own = editing::ordinary_positions(x, layout).to(x.device(), at::kFloat).unsqueeze(1);
        place.ordinary = place.ordinary.defined() ? place.ordinary * own : own;
      }
      if (site == read(i)) {
        const SitePart part = pairs_.part_of(i);
        place.*into_ = x.narrow(1, part.begin, part.width).to(at::kFloat).clone();
      }
      if (into_ == &Place::clean && site == start_site(pairs_.start_of(i).after)) place.start = x.clone();
    }
  }

 private:
  Site read(std::size_t i) const { return dsl::whole(pairs_.nodes_.autoencoder(i).card().site); }
  Site judged(std::size_t i) const { return model::sink_site(read(i), pairs_.transformer_.config()); }

  const LatentPairs& pairs_;
  std::vector<Place>& places_;
  at::Tensor Place::*into_;
};

/// Leaves latents and error terms out, in each copy of a batch those that the copy lacks.
class LatentPairs::Patch : public model::SiteVisitor {
 public:
  /// `kept` [copies, nodes] bools.
  Patch(const LatentPairs& pairs, const Batch& batch, const at::Tensor& kept)
      : pairs_(pairs), batch_(batch), kept_(kept.to(batch.places.front().clean.options())) {}

  bool wants(const Site& site) const override {
    for (std::size_t i = 0; i < pairs_.nodes_.sites(); ++i) {
      if (dsl::whole(pairs_.nodes_.autoencoder(i).card().site) == site) return true;
    }
    return false;
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    for (std::size_t i = 0; i < pairs_.nodes_.sites(); ++i) {
      if (dsl::whole(pairs_.nodes_.autoencoder(i).card().site) != site) continue;
      const SitePart part = pairs_.part_of(i);
      x = with_part(x, part, changed(i, x.narrow(1, part.begin, part.width).to(at::kFloat)));
    }
  }

  /// What becomes of x [copies · n, width of the site].
  at::Tensor changed(std::size_t site, const at::Tensor& x) const {
    const LatentNodes& nodes = pairs_.nodes_;
    const Place& place = batch_.places[site];
    const std::int64_t copies = kept_.size(0), n = batch_.size(), width = x.size(1);
    const at::Tensor error = kept_.select(1, nodes.error(site)).view({copies, 1, 1});
    const at::Tensor latents = kept_.narrow(1, nodes.first(site), nodes.latents(site)).unsqueeze(1);
    // Where the error term is kept, x less what the latents left out have above theirs; where it is not, what stands in
    // the place of all, and what the latents kept have above that. So all of either is itself, to the bit.
    const at::Tensor base = at::where(error.ne(0), x.view({copies, n, width}), place.other);
    const at::Tensor above =
        pairs_.encoded(site, x, place.ordinary.repeat({copies, 1})).view({copies, n, -1}) - place.f_other;
    const at::Tensor moved = (above * (latents - error)).flatten(0, 1);
    return base.reshape({copies * n, width}) + moved.matmul(nodes.autoencoder(site).decoder_rows());
  }

 private:
  const LatentPairs& pairs_;
  const Batch& batch_;
  at::Tensor kept_;  // [copies, nodes] float32
};

/// Puts values at one site.
class LatentPairs::Values : public model::SiteVisitor {
 public:
  Values(const Site& site, const SitePart& part, at::Tensor values)
      : site_(dsl::whole(site)), part_(part), values_(std::move(values)) {}

  bool wants(const Site& site) const override { return site == site_; }
  void visit(const Site&, at::Tensor& x, const model::PackedLayout&) override { x = with_part(x, part_, values_); }

 private:
  Site site_;
  SitePart part_;
  at::Tensor values_;  // [n, width of the site]
};

/// What is decoded where none fires: the decoder's bias, in the input's own mean and scale.
at::Tensor what_no_latent_writes(const Autoencoder& autoencoder, const at::Tensor& x) {
  auto none = autoencoder.encode(x, at::empty({0}, at::kLong));
  none.activations = at::zeros({x.size(0), autoencoder.card().d_sae}, x.options());
  return autoencoder.decode(x, none);
}

LatentPairs::LatentPairs(const model::Transformer& transformer, LatentNodes nodes, const std::vector<BoundPair>& pairs,
                         bool probability, dsl::Ablation ablation, InForce in_force)
    : MeasuredPairs(transformer, probability, std::move(in_force)), nodes_(std::move(nodes)) {
  const at::NoGradGuard no_grad;
  each_batch(pairs, nodes_.most_latents() + transformer.config().width,
             [&](std::size_t first, std::size_t end) { fill(batches_.emplace_back(), pairs, first, end); });
  trace(ablation);
  edgeless_ = measure(at::zeros_like(all()));
}

LatentPairs::Start LatentPairs::start_of(std::size_t site) const {
  const Site& at = nodes_.autoencoder(site).card().site;
  if (at.kind == SiteKind::embed || at.kind == SiteKind::resid_post) return {at.layer, true};
  return {at.layer < 0 ? transformer_.config().layers - 1 : at.layer - 1, false};
}

SitePart LatentPairs::part_of(std::size_t site) const {
  return site_part(transformer_.card(), nodes_.autoencoder(site).card().site);
}

at::Tensor LatentPairs::encoded(std::size_t site, const at::Tensor& x, const at::Tensor& ordinary) const {
  const auto encoded = nodes_.autoencoder(site).encode(x);
  const at::Tensor f = encoded.activations * ordinary;
  return encoded.scale.defined() ? f * encoded.scale.unsqueeze(1) : f;
}

at::Tensor LatentPairs::all() const { return at::ones({nodes_.count()}, at::kBool); }

void LatentPairs::trace(dsl::Ablation ablation) {
  for (Batch& batch : batches_) {
    batch.places.resize(nodes_.sites());
    // Both prompts are seen whatever stands in: which positions are sinks is no matter of that.
    for (const bool corrupt : {true, false}) {
      const Side& side = corrupt ? batch.corrupt_side : batch.clean_side;
      Tracer tracer(*this, batch.places, corrupt ? &Place::other : &Place::clean);
      const auto m = numbers(run(batch, side, {}, &tracer, begin(side)));
      if (!corrupt) clean_.insert(clean_.end(), m.begin(), m.end());
    }
  }
  put_in(ablation);
}

void LatentPairs::put_in(dsl::Ablation ablation) {
  for (std::size_t site = 0; site < nodes_.sites(); ++site) {
    PromptMeans of_x, of_f;
    if (ablation == dsl::Ablation::mean) {
      for (const Batch& batch : batches_) {
        const Place& place = batch.places[site];
        const at::Tensor ordinary = place.ordinary.squeeze(1);
        of_x.add(place.clean, ordinary, batch.clean_side);
        of_f.add(encoded(site, place.clean, place.ordinary), ordinary, batch.clean_side);
      }
    }
    const Mean x = of_x.take(), f = of_f.take();
    for (Batch& batch : batches_) {
      Place& place = batch.places[site];
      if (ablation == dsl::Ablation::zero) place.other = what_no_latent_writes(nodes_.autoencoder(site), place.clean);
      place.f_other = encoded(site, place.other, place.ordinary);
      if (ablation == dsl::Ablation::resample) continue;
      place.f_other.zero_();
      if (!x.first.defined()) continue;
      // A prompt of one token has nothing but the sink.
      if (x.others.defined()) place.other.copy_(x.others.expand_as(place.other));
      if (f.others.defined()) place.f_other.copy_(place.ordinary * f.others);
      std::int64_t begin = 0;
      for (const auto& row : batch.clean_side.rows) {
        place.other[begin].copy_(x.first);
        begin += std::ssize(row.tokens);
      }
    }
  }
}

std::vector<std::vector<double>> LatentPairs::measure_each(const std::vector<at::Tensor>& kept) const {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<double>> all(kept.size());
  for (const Batch& batch : batches_) {
    const auto rows = batch.last.size();
    const auto at_once =
        static_cast<std::size_t>(copies_at_once(batch, nodes_.most_latents() + transformer_.config().width));
    for (std::size_t first = 0; first < kept.size(); first += at_once) {
      const std::size_t count = std::min(at_once, kept.size() - first);
      const std::vector<at::Tensor> some(kept.begin() + first, kept.begin() + first + count);
      const auto copies = static_cast<std::int64_t>(count);
      model::SiteVisitor* in_force = begin(batch.clean_side, copies);
      Patch patch(*this, batch, at::stack(some));
      model::Pass pass;
      if (in_force == nullptr) {  // what a rule does downstream may depend on what it saw upstream
        const Start start = start_of(0);
        const at::Tensor stream = batch.places.front().start.repeat({copies, 1});
        pass.start_after = start.after;
        pass.start_values = start.at_site ? patch.changed(0, stream.to(at::kFloat)).to(stream.scalar_type()) : stream;
      }
      const auto m = numbers(run(batch, batch.clean_side, std::move(pass), &patch, in_force, copies));
      for (std::size_t i = 0; i < m.size(); ++i) all[first + i / rows].push_back(m[i]);
    }
  }
  return all;
}

at::Tensor LatentPairs::run_from(const Batch& batch, std::size_t site, const at::Tensor& x, std::int64_t copies) const {
  const Start start = start_of(site);
  const at::Tensor& stream = batch.places[site].start;
  Values values(nodes_.autoencoder(site).card().site, part_of(site), x);
  model::Pass pass;
  pass.start_after = start.after;
  pass.start_values = start.at_site ? x.to(stream.scalar_type()) : stream.repeat({copies, 1});
  return run(batch, batch.clean_side, std::move(pass), start.at_site ? nullptr : &values, nullptr, copies);
}

at::Tensor LatentPairs::attribution(std::int64_t steps) const {
  return weighted_attribution(path_shares(steps), even_weights())[0];
}

at::Tensor LatentPairs::weighted_attribution(const std::vector<double>& shares, const at::Tensor& weights) const {
  require_nothing_in_force();
  at::Tensor scores = at::zeros({weights.size(0), nodes_.count()}, at::kDouble);
  std::int64_t first_pair = 0;
  for (const Batch& batch : batches_) {
    const at::Tensor of_tokens = token_weights(weights, batch, first_pair);
    first_pair += std::ssize(batch.last);
    for (std::size_t site = 0; site < nodes_.sites(); ++site) {
      const Place& place = batch.places[site];
      at::Tensor gradient = at::zeros_like(place.clean);
      for (const double share : shares) {
        const at::Tensor x = at::lerp(place.other, place.clean, share).detach().requires_grad_(true);
        const at::AutoGradMode with_gradients(true);
        run_from(batch, site, x, 1).sum().backward();
        if (x.grad().defined()) gradient.add_(x.grad());
      }
      const at::NoGradGuard no_grad;
      gradient.div_(static_cast<double>(shares.size()));
      const at::Tensor rows = nodes_.autoencoder(site).decoder_rows();
      const at::Tensor change = place.f_other - encoded(site, place.clean, place.ordinary);  // [n, latents]
      const at::Tensor of_error = place.other - place.clean - change.matmul(rows);           // [n, width]
      const auto add = [&](std::int64_t first, const at::Tensor& by_token) {
        scores.narrow(1, first, by_token.size(1)).add_(of_tokens.matmul(by_token.to(at::kDouble).cpu()));
      };
      add(nodes_.first(site), change * gradient.matmul(rows.t()));
      add(nodes_.error(site), (of_error * gradient).sum(1, /*keepdim=*/true));
    }
  }
  return scores;
}

at::Tensor LatentPairs::brute_force() const { return weighted_brute_force(even_weights())[0]; }

at::Tensor LatentPairs::weighted_brute_force(const at::Tensor& weights) const {
  require_nothing_in_force();
  const at::NoGradGuard no_grad;
  at::Tensor scores = at::zeros({weights.size(0), nodes_.count()}, at::kDouble);
  std::size_t first_pair = 0;
  for (const Batch& batch : batches_) {
    const std::int64_t at_once = std::max<std::int64_t>(1, kTokensInPass / batch.size());
    for (std::size_t site = 0; site < nodes_.sites(); ++site) {
      const Place& place = batch.places[site];
      // `changes` [count, n, width] of as many nodes.
      const auto patch = [&](const std::vector<std::int64_t>& nodes, const at::Tensor& changes) {
        const std::int64_t count = changes.size(0);
        const auto m = numbers(run_from(batch, site, (place.clean + changes).flatten(0, 1), count));
        for (std::size_t i = 0; i < m.size(); ++i) {
          const std::size_t pair = first_pair + i % batch.last.size();
          scores.select(1, nodes[i / batch.last.size()])
              .add_(weights.select(1, static_cast<std::int64_t>(pair)), m[i] - clean_[pair]);
        }
      };
      const at::Tensor rows = nodes_.autoencoder(site).decoder_rows();
      const at::Tensor change = place.f_other - encoded(site, place.clean, place.ordinary);
      const at::Tensor differing = change.ne(0).any(0).nonzero().squeeze(1);
      for (std::int64_t first = 0; first < differing.size(0); first += at_once) {
        const at::Tensor some = differing.narrow(0, first, std::min(at_once, differing.size(0) - first));
        std::vector<std::int64_t> nodes;
        for (std::int64_t i = 0; i < some.size(0); ++i)
          nodes.push_back(nodes_.first(site) + some[i].item<std::int64_t>());
        patch(nodes, change.index_select(1, some).t().unsqueeze(2) * rows.index_select(0, some).unsqueeze(1));
      }
      patch({nodes_.error(site)}, (place.other - place.clean - change.matmul(rows)).unsqueeze(0));
    }
    first_pair += batch.last.size();
  }
  return scores;
}

}  // namespace proviso::runtime

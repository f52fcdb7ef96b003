#include "runtime/circuits/patched_pairs.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

using dsl::Site;
using dsl::SiteKind;

at::Tensor PatchedPairs::for_each_head(const at::Tensor& stream, std::int64_t heads) {
  return stream.unsqueeze(1).expand({-1, heads, -1});
}

bool PatchedPairs::is_of_heads(SiteKind kind) {
  return kind == SiteKind::q || kind == SiteKind::k || kind == SiteKind::v;
}

/// Gives everyone the stream, and keeps it.
class PatchedPairs::Tracer : public model::StreamReader, public model::SiteVisitor {
 public:
  /// With `instead` every source writes that.
  Tracer(const CircuitGraph& graph, Trace& trace, const Written* instead = nullptr)
      : graph_(graph), trace_(trace), instead_(instead) {
    trace.z.resize(static_cast<std::size_t>(graph.layers()));
    trace.mlp_out.resize(trace.z.size());
  }

  at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor& stream) override {
    if (kind != SiteKind::k && kind != SiteKind::v) trace_.streams[{kind, layer}] = stream;
    return is_of_heads(kind) ? for_each_head(stream, graph_.heads()) : stream;
  }
  bool wants(const Site& site) const override {
    return site.kind == SiteKind::embed || site.kind == SiteKind::z || site.kind == SiteKind::mlp_out;
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    const auto layer = static_cast<std::size_t>(std::max<std::int64_t>(site.layer, 0));
    const auto of = [&](auto& written) -> auto& {
      return site.kind == SiteKind::embed ? written.embed
             : site.kind == SiteKind::z   ? written.z[layer]
                                          : written.mlp_out[layer];
    };
    if (instead_ != nullptr) x = of(*instead_);
    of(trace_) = x;
  }

 private:
  const CircuitGraph& graph_;
  Trace& trace_;
  const Written* instead_;
};

/// Gives every destination what its edges carry, in each copy of a batch what that copy's edges do.
class PatchedPairs::Patch : public model::StreamReader, public model::SiteVisitor {
 public:
  /// `edges` [copies, destinations, sources] in the numbers of the model.
  Patch(const PatchedPairs& pairs, const Batch& batch, const at::Tensor& edges, model::SiteVisitor* in_force)
      : pairs_(pairs),
        graph_(pairs.graph_),
        reference_(batch.reference),
        in_force_(in_force),
        copies_(edges.size(0)),
        edges_(edges),
        written_(
            at::zeros({copies_, graph_.sources(), batch.reference.embed.numel()}, batch.reference.embed.options())) {}

  at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor&) override {
    const auto readers = graph_.readers(kind, layer);
    const at::Tensor& reference = reference_.streams.at({is_of_heads(kind) ? SiteKind::q : kind, layer});
    const at::Tensor carried = at::bmm(edges_.narrow(1, readers.first, readers.count).narrow(2, 0, readers.sources),
                                       written_.narrow(1, 0, readers.sources))
                                   .view({copies_, readers.count, reference.size(0), reference.size(1)});
    const at::Tensor input = reference + carried;
    if (!is_of_heads(kind)) return input.flatten(0, 2);
    return input.transpose(1, 2).flatten(0, 1);
  }
  bool wants(const Site& site) const override {
    return site.kind == SiteKind::embed || site.kind == SiteKind::z || site.kind == SiteKind::mlp_out ||
           (in_force_ != nullptr && is_shared(site.kind) && in_force_->wants(site));
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    const auto layer = static_cast<std::size_t>(std::max<std::int64_t>(site.layer, 0));
    // What a source has written less its reference, by copy: [copies, n, …]
    const auto above = [&](const at::Tensor& reference) {
      return x.view({copies_, reference.size(0), reference.size(1)}) - reference;
    };
    if (is_shared(site.kind)) {
      pass_on(site, layout);
    } else if (site.kind == SiteKind::embed) {
      written_.select(1, 0).copy_(above(reference_.embed).flatten(1));
    } else if (site.kind == SiteKind::mlp_out) {
      written_.select(1, graph_.mlp(site.layer)).copy_(above(reference_.mlp_out[layer]).flatten(1));
    } else {
      const at::Tensor of_heads = pairs_.head_outputs(site.layer, above(reference_.z[layer]).flatten(0, 1));
      written_.narrow(1, graph_.first_head(site.layer), graph_.heads())
          .copy_(of_heads.view({graph_.heads(), copies_, -1}).transpose(0, 1));
    }
  }

 private:
  static bool is_shared(SiteKind kind) {
    return kind == SiteKind::attn_out || kind == SiteKind::resid_mid || kind == SiteKind::resid_post;
  }
  /// What acts where sources are summed is affine: its linear part takes hold of what each of them has added.
  void pass_on(const Site& site, const model::PackedLayout& layout) {
    const std::int64_t begin = site.kind == SiteKind::attn_out ? graph_.first_head(site.layer) : 0;
    const std::int64_t end = site.kind == SiteKind::resid_post ? graph_.mlp(site.layer) + 1 : graph_.mlp(site.layer);
    at::Tensor of_nothing = at::zeros({layout.size(), reference_.embed.size(1)}, reference_.embed.options());
    in_force_->visit(site, of_nothing, layout);
    for (std::int64_t source = begin; source < end; ++source) {
      at::Tensor x = written_.select(1, source).reshape(of_nothing.sizes()).clone();
      in_force_->visit(site, x, layout);
      written_.select(1, source).copy_((x - of_nothing).view({copies_, -1}));
    }
  }

  const PatchedPairs& pairs_;
  const CircuitGraph& graph_;
  const Trace& reference_;
  model::SiteVisitor* in_force_;
  std::int64_t copies_;
  at::Tensor edges_;
  at::Tensor written_;  // [copies, sources, n · width] by now, less what is written in the reference run
};

PatchedPairs::PatchedPairs(const model::Transformer& transformer, const std::vector<BoundPair>& pairs, bool probability,
                           dsl::Ablation ablation, InForce in_force)
    : MeasuredPairs(transformer, probability, std::move(in_force)), graph_(transformer.config()) {
  const at::NoGradGuard no_grad;
  each_batch(pairs, graph_.sources() * transformer.config().width,
             [&](std::size_t first, std::size_t end) { fill(batches_.emplace_back(), pairs, first, end); });
  trace(ablation);
}

void PatchedPairs::trace(dsl::Ablation ablation) {
  const auto traced = [this](const Batch& batch, const Side& side, Tracer tracer, std::vector<double>& all) {
    const auto m = numbers(read(batch, side, tracer, begin(side)));
    all.insert(all.end(), m.begin(), m.end());
  };
  for (Batch& batch : batches_) traced(batch, batch.clean_side, Tracer(graph_, batch.clean), clean_);
  if (ablation == dsl::Ablation::resample) {
    for (Batch& batch : batches_) traced(batch, batch.corrupt_side, Tracer(graph_, batch.reference), edgeless_);
    return;
  }
  const auto written = left_out(ablation);
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    Batch& batch = batches_[i];
    traced(batch, batch.clean_side, Tracer(graph_, batch.reference, &written[i]), edgeless_);
  }
}

template <class Of, class Stream>
PatchedPairs::Mean PatchedPairs::mean_of(bool corrupt, Of of, Stream stream) const {
  PromptMeans means;
  for (const Batch& batch : batches_) {
    const at::Tensor norms =
        stream(trace_of(batch, corrupt)).to(at::kFloat).norm(2, at::IntArrayRef{1}).cpu().contiguous();
    std::vector<std::uint8_t> ordinary;
    for (const auto& row : batch.clean_side.rows) {
      const auto of_row =
          model::ordinary_positions({norms.const_data_ptr<float>() + ordinary.size(), row.tokens.size()});
      ordinary.insert(ordinary.end(), of_row.begin(), of_row.end());
    }
    means.add(of(trace_of(batch, corrupt)), at::tensor(at::ArrayRef<std::uint8_t>(ordinary), at::kByte),
              batch.clean_side);
  }
  return means.take();
}

std::vector<PatchedPairs::Written> PatchedPairs::left_out(dsl::Ablation ablation) const {
  std::vector<Written> all(batches_.size());
  const auto put = [&](auto of, const auto& stream) {
    Mean mean;
    if (ablation == dsl::Ablation::mean) mean = mean_of(false, of, stream);
    for (std::size_t i = 0; i < batches_.size(); ++i) {
      at::Tensor written = at::zeros_like(of(batches_[i].clean));
      if (mean.others.defined()) written.copy_(mean.others.expand_as(written));
      std::int64_t begin = 0;
      for (const auto& row : batches_[i].clean_side.rows) {
        if (mean.first.defined()) written[begin].copy_(mean.first);
        begin += std::ssize(row.tokens);
      }
      of(all[i]) = written;
    }
  };
  for (Written& written : all) {
    written.z.resize(static_cast<std::size_t>(graph_.layers()));
    written.mlp_out.resize(written.z.size());
  }
  put([](auto& written) -> auto& { return written.embed; }, [](const Trace& trace) { return trace.embed; });
  for (std::int64_t layer = 0; layer < graph_.layers(); ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    put([l](auto& written) -> auto& { return written.z[l]; },
        [layer](const Trace& trace) {
          return trace.streams.at({SiteKind::q, layer});
        });
    put([l](auto& written) -> auto& { return written.mlp_out[l]; },
        [layer](const Trace& trace) {
          return trace.streams.at({SiteKind::mlp_pre, layer});
        });
  }
  return all;
}

SourceMeans PatchedPairs::corrupt_means() const {
  const at::NoGradGuard no_grad;
  SourceMeans means;
  // A prompt of one token has nothing but the sink: its mean is what stands there.
  const auto mean = [&](auto of, auto stream) {
    const Mean of_source = mean_of(true, of, stream);
    return (of_source.others.defined() ? of_source.others : of_source.first).to(at::kFloat);
  };
  means.embed = mean([](const auto& written) -> const auto& { return written.embed; },
                     [](const Trace& trace) { return trace.embed; });
  for (std::int64_t layer = 0; layer < graph_.layers(); ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    means.z.push_back(mean([l](const auto& written) -> const auto& { return written.z[l]; },
                           [layer](const Trace& trace) {
                             return trace.streams.at({SiteKind::q, layer});
                           }));
    means.mlp_out.push_back(mean([l](const auto& written) -> const auto& { return written.mlp_out[l]; },
                                 [layer](const Trace& trace) {
                                   return trace.streams.at({SiteKind::mlp_pre, layer});
                                 }));
  }
  return means;
}

at::Tensor PatchedPairs::head_outputs(std::int64_t layer, const at::Tensor& z) const {
  const model::ModelConfig& config = transformer_.config();
  const at::Tensor weight = transformer_.get(transformer_.writer({SiteKind::attn_out, layer})->weight);
  const at::Tensor by_head = z.view({z.size(0), config.heads, config.head_dim}).transpose(0, 1);
  return at::bmm(by_head, weight.view({config.width, config.heads, config.head_dim}).permute({1, 2, 0}));
}

at::Tensor PatchedPairs::differences(const Batch& batch) const {
  const Trace &clean = batch.clean, &reference = batch.reference;
  std::vector<at::Tensor> rows = {(clean.embed - reference.embed).reshape({1, -1})};
  for (std::int64_t layer = 0; layer < graph_.layers(); ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    rows.push_back(head_outputs(layer, clean.z[l] - reference.z[l]).flatten(1));
    rows.push_back((clean.mlp_out[l] - reference.mlp_out[l]).reshape({1, -1}));
  }
  return at::cat(rows);
}

std::vector<std::vector<double>> PatchedPairs::measure_each(const std::vector<at::Tensor>& edges) const {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<double>> all(edges.size());
  for (const Batch& batch : batches_) {
    const auto rows = batch.last.size();
    const auto at_once =
        static_cast<std::size_t>(copies_at_once(batch, graph_.sources() * transformer_.config().width));
    for (std::size_t first = 0; first < edges.size(); first += at_once) {
      const std::size_t count = std::min(at_once, edges.size() - first);
      const std::vector<at::Tensor> some(edges.begin() + first, edges.begin() + first + count);
      const auto copies = static_cast<std::int64_t>(count);
      model::SiteVisitor* in_force = begin(batch.clean_side, copies);
      Patch patch(*this, batch, at::stack(some).to(batch.reference.embed.options()), in_force);
      const auto m = numbers(read(batch, batch.clean_side, patch, in_force, copies));
      for (std::size_t i = 0; i < m.size(); ++i) all[first + i / rows].push_back(m[i]);
    }
  }
  return all;
}

}  // namespace proviso::runtime

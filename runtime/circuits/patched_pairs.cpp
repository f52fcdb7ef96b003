#include "runtime/circuits/patched_pairs.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

namespace proviso::runtime {

using dsl::Site;
using dsl::SiteKind;

namespace {

/// What the sources of a batch write takes this much at most, in numbers, unless one pair takes more.
constexpr std::int64_t kNumbersInBatch = std::int64_t{16} << 20;
/// Tokens in a pass that patches single edges.
constexpr std::int64_t kTokensInPass = 512;

std::vector<double> numbers(const at::Tensor& values) {
  const at::Tensor kept = values.to(at::kDouble).cpu().contiguous();
  return {kept.const_data_ptr<double>(), kept.const_data_ptr<double>() + kept.numel()};
}

/// The stream for each head: no copies.
at::Tensor for_each_head(const at::Tensor& stream, std::int64_t heads) {
  return stream.unsqueeze(1).expand({-1, heads, -1});
}

bool is_of_heads(SiteKind kind) { return kind == SiteKind::q || kind == SiteKind::k || kind == SiteKind::v; }

}  // namespace

/// Gives everyone the stream, and keeps it.
class PatchedPairs::Tracer : public model::StreamReader, public model::SiteVisitor {
 public:
  Tracer(const CircuitGraph& graph, Trace& trace) : graph_(graph), trace_(trace) {
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
    (site.kind == SiteKind::embed ? trace_.embed
     : site.kind == SiteKind::z   ? trace_.z[layer]
                                  : trace_.mlp_out[layer]) = x;
  }

 private:
  const CircuitGraph& graph_;
  Trace& trace_;
};

/// Gives every destination what its edges carry.
class PatchedPairs::Patch : public model::StreamReader, public model::SiteVisitor {
 public:
  /// `edges` [destinations, sources] in the numbers of the model.
  Patch(const PatchedPairs& pairs, const Batch& batch, const at::Tensor& edges)
      : pairs_(pairs),
        graph_(pairs.graph_),
        corrupt_(batch.corrupt),
        edges_(edges),
        written_(at::zeros({graph_.sources(), batch.corrupt.embed.numel()}, batch.corrupt.embed.options())) {}

  at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor&) override {
    const auto readers = graph_.readers(kind, layer);
    const at::Tensor& corrupt = corrupt_.streams.at({is_of_heads(kind) ? SiteKind::q : kind, layer});
    const at::Tensor carried = at::mm(edges_.narrow(0, readers.first, readers.count).narrow(1, 0, readers.sources),
                                      written_.narrow(0, 0, readers.sources))
                                   .view({readers.count, corrupt.size(0), corrupt.size(1)});
    if (!is_of_heads(kind)) return corrupt + carried[0];
    return (corrupt + carried).transpose(0, 1);
  }
  bool wants(const Site& site) const override {
    return site.kind == SiteKind::embed || site.kind == SiteKind::z || site.kind == SiteKind::mlp_out;
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    const auto layer = static_cast<std::size_t>(std::max<std::int64_t>(site.layer, 0));
    if (site.kind == SiteKind::embed) {
      written_[0].copy_((x - corrupt_.embed).flatten());
    } else if (site.kind == SiteKind::mlp_out) {
      written_[graph_.mlp(site.layer)].copy_((x - corrupt_.mlp_out[layer]).flatten());
    } else {
      written_.narrow(0, graph_.first_head(site.layer), graph_.heads())
          .copy_(pairs_.head_outputs(site.layer, x - corrupt_.z[layer]).flatten(1));
    }
  }

 private:
  const PatchedPairs& pairs_;
  const CircuitGraph& graph_;
  const Trace& corrupt_;
  at::Tensor edges_;
  at::Tensor written_;  // [sources, n · width] by now, less what was written in the corrupt run
};

/// Gives everyone the stream of a run that starts from an embedding between the two, and keeps the gradient of m
/// by each destination's input.
class PatchedPairs::Gradients : public model::StreamReader, public model::SiteVisitor {
 public:
  Gradients(const CircuitGraph& graph, at::Tensor embed) : graph_(graph), embed_(std::move(embed)) {}

  at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor& stream) override {
    // A view of its own, so that the gradient kept is this reader's and not all readers'.
    at::Tensor seen = is_of_heads(kind) ? for_each_head(stream, graph_.heads()) : stream.view(stream.sizes());
    seen.retain_grad();
    inputs_[{kind, layer}] = seen;
    return seen;
  }
  bool wants(const Site& site) const override { return site.kind == SiteKind::embed; }
  void visit(const Site&, at::Tensor& x, const model::PackedLayout&) override {
    x = embed_.detach().clone().requires_grad_(true);
  }

  /// Adds Σ (corrupt − clean) · gradient for every edge; `differences` [sources, n · width] are clean − corrupt.
  void add_to(at::Tensor& scores, const at::Tensor& differences) const {
    for (const auto& [place, input] : inputs_) {
      const at::Tensor& gradient = input.grad();
      if (!gradient.defined()) continue;  // nothing of m depends on it
      const auto readers = graph_.readers(place.first, place.second);
      const at::Tensor rows = is_of_heads(place.first)
                                  ? gradient.transpose(0, 1).reshape({readers.count, differences.size(1)})
                                  : gradient.reshape({1, differences.size(1)});
      scores.narrow(0, readers.first, readers.count)
          .narrow(1, 0, readers.sources)
          .sub_(at::mm(rows, differences.narrow(0, 0, readers.sources).t()).to(at::kDouble).cpu());
    }
  }

 private:
  const CircuitGraph& graph_;
  at::Tensor embed_;
  std::map<Place, at::Tensor> inputs_;
};

/// Gives everyone the stream, and one destination also what an edge's corruption changes, another edge a row.
class PatchedPairs::SingleEdges : public model::StreamReader {
 public:
  /// `changes` [n, width]
  SingleEdges(const CircuitGraph& graph, CircuitGraph::Reading at, at::Tensor changes)
      : graph_(graph), at_(at), changes_(std::move(changes)) {}

  at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor& stream) override {
    const bool here = kind == at_.kind && layer == at_.layer;
    if (!is_of_heads(kind)) return here ? stream + changes_ : stream;
    const at::Tensor seen = for_each_head(stream, graph_.heads());
    if (!here) return seen;
    at::Tensor changed = seen.clone(at::MemoryFormat::Contiguous);
    changed.select(1, at_.head).add_(changes_);
    return changed;
  }

 private:
  const CircuitGraph& graph_;
  CircuitGraph::Reading at_;
  at::Tensor changes_;
};

PatchedPairs::PatchedPairs(const model::Transformer& transformer, const BoundCircuit& circuit)
    : transformer_(transformer), graph_(transformer.config()), probability_(circuit.probability) {
  const at::NoGradGuard no_grad;
  const std::int64_t numbers_a_token = graph_.sources() * transformer.config().width;
  for (std::size_t first = 0; first < circuit.pairs.size();) {
    std::int64_t tokens = 0;
    std::size_t end = first;
    for (; end < circuit.pairs.size(); ++end) {
      const std::int64_t length = std::ssize(circuit.pairs[end].clean.tokens);
      if (end > first && (tokens + length) * numbers_a_token > kNumbersInBatch) break;
      tokens += length;
    }
    batches_.push_back(make_batch(circuit, first, end));
    first = end;
  }
  for (Batch& batch : batches_) {
    for (const bool is_clean : {true, false}) {
      Tracer tracer(graph_, is_clean ? batch.clean : batch.corrupt);
      const auto m = numbers(run(batch, is_clean ? batch.clean_rows : batch.corrupt_rows, tracer, tracer));
      auto& all = is_clean ? clean_ : edgeless_;
      all.insert(all.end(), m.begin(), m.end());
    }
  }
}

PatchedPairs::Batch PatchedPairs::make_batch(const BoundCircuit& circuit, std::size_t first, std::size_t end) const {
  Batch batch;
  std::vector<std::int64_t> raised, lowered;
  std::int64_t tokens = 0;
  for (std::size_t i = first; i < end; ++i) {
    const BoundPair& pair = circuit.pairs[i];
    const std::int64_t length = std::ssize(pair.clean.tokens);
    batch.clean_rows.push_back({pair.clean.tokens, length});
    batch.corrupt_rows.push_back({pair.corrupt.tokens, length});
    tokens += length;
    batch.last.push_back(tokens - 1);
    raised.push_back(pair.raised);
    lowered.push_back(pair.lowered);
  }
  const at::Device device = transformer_.options().device;
  batch.raised = at::tensor(raised, at::kLong).to(device);
  if (!probability_) batch.lowered = at::tensor(lowered, at::kLong).to(device);
  return batch;
}

at::Tensor PatchedPairs::measure_of(const at::Tensor& logits, const at::Tensor& raised, const at::Tensor& lowered) {
  const auto of = [](const at::Tensor& values, const at::Tensor& ids) {
    return values.gather(1, ids.unsqueeze(1)).squeeze(1).to(at::kDouble);
  };
  return lowered.defined() ? of(logits, raised) - of(logits, lowered) : of(logits.log_softmax(-1), raised).exp();
}

at::Tensor PatchedPairs::run(const Batch& batch, const std::vector<model::Row>& rows, model::StreamReader& reader,
                             model::SiteVisitor& visitor) const {
  std::vector<at::Tensor> chunks;
  model::Pass pass;
  pass.rows = &rows;
  pass.reader = &reader;
  pass.visitor = &visitor;
  pass.logits_at = batch.last;
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits); };
  const auto layout = transformer_.forward(pass);
  ++passes_;
  tokens_ += layout.size();
  return measure_of(at::cat(chunks), batch.raised, batch.lowered);
}

at::Tensor PatchedPairs::head_outputs(std::int64_t layer, const at::Tensor& z) const {
  const model::ModelConfig& config = transformer_.config();
  const at::Tensor weight = transformer_.get(transformer_.writer({SiteKind::attn_out, layer})->weight);
  const at::Tensor by_head = z.view({z.size(0), config.heads, config.head_dim}).transpose(0, 1);
  return at::bmm(by_head, weight.view({config.width, config.heads, config.head_dim}).permute({1, 2, 0}));
}

at::Tensor PatchedPairs::differences(const Batch& batch) const {
  const Trace &clean = batch.clean, &corrupt = batch.corrupt;
  std::vector<at::Tensor> rows = {(clean.embed - corrupt.embed).reshape({1, -1})};
  for (std::int64_t layer = 0; layer < graph_.layers(); ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    rows.push_back(head_outputs(layer, clean.z[l] - corrupt.z[l]).flatten(1));
    rows.push_back((clean.mlp_out[l] - corrupt.mlp_out[l]).reshape({1, -1}));
  }
  return at::cat(rows);
}

std::vector<double> PatchedPairs::measure(const at::Tensor& edges) const {
  const at::NoGradGuard no_grad;
  std::vector<double> all;
  for (const Batch& batch : batches_) {
    Patch patch(*this, batch, edges.to(batch.corrupt.embed.options()));
    const auto m = numbers(run(batch, batch.clean_rows, patch, patch));
    all.insert(all.end(), m.begin(), m.end());
  }
  return all;
}

at::Tensor PatchedPairs::attribution() const { return attribution_at({1.0}); }

at::Tensor PatchedPairs::integrated_attribution(std::int64_t steps) const {
  std::vector<double> shares;
  for (std::int64_t k = 0; k < steps; ++k) shares.push_back(static_cast<double>(k) / static_cast<double>(steps));
  return attribution_at(shares);
}

at::Tensor PatchedPairs::attribution_at(const std::vector<double>& shares) const {
  at::Tensor scores = at::zeros({graph_.destinations(), graph_.sources()}, at::kDouble);
  for (const Batch& batch : batches_) {
    at::Tensor changes;
    {
      const at::NoGradGuard no_grad;
      changes = differences(batch);
    }
    for (const double share : shares) {
      Gradients gradients(graph_, at::lerp(batch.corrupt.embed, batch.clean.embed, share));
      {
        const at::AutoGradMode with_gradients(true);
        run(batch, batch.clean_rows, gradients, gradients).sum().backward();
      }
      const at::NoGradGuard no_grad;
      gradients.add_to(scores, changes);
    }
  }
  return scores.div_(static_cast<double>(clean_.size() * shares.size()));
}

at::Tensor PatchedPairs::brute_force() const {
  const at::NoGradGuard no_grad;
  at::Tensor scores = at::zeros({graph_.destinations(), graph_.sources()}, at::kDouble);
  std::size_t first_pair = 0;
  for (const Batch& batch : batches_) {
    const at::Tensor changes =
        differences(batch).view({graph_.sources(), batch.size(), transformer_.config().width}).neg();
    for (std::int64_t destination = 0; destination < graph_.destinations(); ++destination) {
      const auto at = graph_.reading(destination);
      const bool of_logits = at.kind == SiteKind::final_norm;
      const std::int64_t sources = graph_.readers(at.kind, at.layer).sources;
      // The clean stream before this layer, from which its pass starts.
      const at::Tensor& stream = batch.clean.streams.at(of_logits ? Place{at.kind, -1} : Place{SiteKind::q, at.layer});
      const std::int64_t at_once = std::max<std::int64_t>(1, kTokensInPass / batch.size());
      for (std::int64_t first = 0; first < sources; first += at_once) {
        const std::int64_t count = std::min(at_once, sources - first);
        std::vector<model::Row> rows;
        std::vector<std::int64_t> last;
        for (std::int64_t i = 0; i < count; ++i) {
          rows.insert(rows.end(), batch.clean_rows.begin(), batch.clean_rows.end());
          for (const std::int64_t index : batch.last) last.push_back(i * batch.size() + index);
        }
        SingleEdges reader(graph_, at, changes.narrow(0, first, count).flatten(0, 1));
        std::vector<at::Tensor> chunks;
        model::Pass pass;
        pass.rows = &rows;
        pass.reader = &reader;
        pass.start_after = of_logits ? graph_.layers() - 1 : at.layer - 1;
        pass.start_values = stream.repeat({count, 1});
        pass.logits_at = last;
        pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits); };
        tokens_ += transformer_.forward(pass).size();
        ++passes_;
        const auto repeated = [&](const at::Tensor& ids) { return ids.defined() ? ids.repeat({count}) : ids; };
        const auto m = numbers(measure_of(at::cat(chunks), repeated(batch.raised), repeated(batch.lowered)));
        for (std::size_t i = 0; i < m.size(); ++i) {
          const std::size_t pair = i % batch.last.size();
          scores[destination][first + static_cast<std::int64_t>(i / batch.last.size())] +=
              m[i] - clean_[first_pair + pair];
        }
      }
    }
    first_pair += batch.last.size();
  }
  return scores.div_(static_cast<double>(clean_.size()));
}

at::Tensor PatchedPairs::brute_force_nodes() const {
  at::Tensor scores = at::zeros({graph_.sources()}, at::kDouble);
  for (std::int64_t source = 1; source < graph_.sources(); ++source) {
    at::Tensor edges = graph_.all();
    edges.select(1, source).fill_(false);
    const auto m = measure(edges);
    double change = 0;
    for (std::size_t i = 0; i < m.size(); ++i) change += m[i] - clean_[i];
    scores[source] = change / static_cast<double>(m.size());
  }
  return scores;
}

}  // namespace proviso::runtime

#include "runtime/circuits/patch_sweep.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "runtime/model/key_value_cache.hpp"
#include "runtime/model/random.hpp"

namespace proviso::runtime {

using dsl::Site;
using dsl::SiteKind;

namespace {

/// Patches that both models of a screened sweep run.
constexpr std::size_t kSampled = 32;

/// Keeps some sites, and puts values in the place of others.
class Exchange : public model::SiteVisitor {
 public:
  std::map<Site, at::Tensor> put, kept;
  std::vector<SiteKind> keep;

  bool wants(const Site& site) const override {
    return put.contains(site) || std::find(keep.begin(), keep.end(), site.kind) != keep.end();
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    if (const auto found = put.find(site); found != put.end()) x = found->second.clone();
    if (std::find(keep.begin(), keep.end(), site.kind) != keep.end()) kept[site] = x.clone();
  }
};

/// The stream before a layer, by its canonical name.
Site before(std::int64_t layer) { return dsl::canonical({SiteKind::resid_pre, layer, -1}); }

}  // namespace

/// One prompt's activations, and its keys and values.
struct PatchSweep::Run {
  std::map<Site, at::Tensor> kept;  // before each layer, z, mlp_out: [n, …]
  model::KeyValueCache cache;
};

PatchSweep::PatchSweep(const model::Transformer& transformer, const BoundPair& pair, bool probability)
    : transformer_(transformer), pair_(pair), probability_(probability) {
  const at::NoGradGuard no_grad;
  const auto differs = std::mismatch(pair.clean.tokens.begin(), pair.clean.tokens.end(), pair.corrupt.tokens.begin());
  first_difference_ = differs.first - pair.clean.tokens.begin();
  for (const bool is_clean : {true, false}) {
    auto& kept = is_clean ? clean_run_ : corrupt_run_;
    kept = std::make_unique<Run>();
    const std::vector<model::Row> rows = {{is_clean ? pair.clean.tokens : pair.corrupt.tokens, length()}};
    Exchange visitor;
    visitor.keep = {SiteKind::embed, SiteKind::resid_post, SiteKind::z, SiteKind::mlp_out};
    std::vector<at::Tensor> logits;
    model::Pass pass;
    pass.rows = &rows;
    pass.cache = &kept->cache;
    pass.visitor = &visitor;
    pass.logits_at = std::vector<std::int64_t>{length() - 1};
    pass.on_logits = [&](std::int64_t, const at::Tensor& chunk) { logits.push_back(chunk); };
    layer_tokens_ += static_cast<double>(transformer_.forward(pass).size() * transformer_.config().layers);
    kept->kept = std::move(visitor.kept);
    (is_clean ? clean_ : corrupt_) = measure(logits).front();
  }
}

PatchSweep::~PatchSweep() = default;

std::vector<double> PatchSweep::measure(const std::vector<at::Tensor>& logits) const {
  const at::Tensor all = at::cat(logits);
  const at::Tensor raised =
      probability_ ? all.log_softmax(-1).select(1, pair_.raised).to(at::kDouble).exp()
                   : all.select(1, pair_.raised).to(at::kDouble) - all.select(1, pair_.lowered).to(at::kDouble);
  const at::Tensor m = raised.cpu().contiguous();
  return {m.const_data_ptr<double>(), m.const_data_ptr<double>() + m.numel()};
}

std::vector<SweptPatch> PatchSweep::all(SiteKind kind, const model::ModelConfig& config, std::int64_t length) {
  std::vector<SweptPatch> patches;
  const std::int64_t heads = kind == SiteKind::z ? config.heads : 1;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    for (std::int64_t head = 0; head < heads; ++head) {
      const Site site = dsl::canonical({kind, layer, kind == SiteKind::z ? head : -1});
      for (std::int64_t position = 0; position < length; ++position) patches.push_back({site, position});
    }
  }
  return patches;
}

/// What is patched inside a layer leaves a changed stream at its position above that layer, and nowhere else: each is a
/// row of one token, whose keys nobody reads.
std::vector<PatchSweep::Start> PatchSweep::starts(const std::vector<SweptPatch>& patches,
                                                  const std::vector<std::size_t>& computed) const {
  std::vector<Start> found;
  std::map<std::int64_t, std::vector<std::size_t>> inside;  // by layer
  for (const std::size_t i : computed) {
    const SweptPatch& patch = patches[i];
    if (patch.site.kind == SiteKind::z || patch.site.kind == SiteKind::mlp_out) {
      inside[patch.site.layer].push_back(i);
    } else if (patch.site.kind == SiteKind::embed || patch.site.kind == SiteKind::resid_post) {
      const std::int64_t layer = patch.site.kind == SiteKind::embed ? 0 : patch.site.layer + 1;
      found.push_back({i, layer, clean_run_->kept.at(patch.site)[patch.position]});
    } else {
      throw std::logic_error("no sweep patches " + dsl::to_string(patch.site));
    }
  }
  const std::int64_t head_dim = transformer_.config().head_dim;
  for (const auto& [layer, members] : inside) {
    std::vector<model::Row> rows;
    std::vector<std::int64_t> positions;
    for (const std::size_t i : members) {
      positions.push_back(patches[i].position);
      rows.push_back({{pair_.corrupt.tokens[static_cast<std::size_t>(patches[i].position)]}, 1});
    }
    const at::Tensor at = at::tensor(positions, at::kLong).to(transformer_.options().device);
    const auto of_corrupt = [&](const Site& site) { return corrupt_run_->kept.at(site).index_select(0, at); };
    const Site z{SiteKind::z, layer, -1}, mlp_out{SiteKind::mlp_out, layer, -1}, after{SiteKind::resid_post, layer, -1};
    const at::Tensor clean_z = clean_run_->kept.at(z), clean_mlp = clean_run_->kept.at(mlp_out);
    Exchange visitor;
    visitor.keep = {SiteKind::resid_post};
    visitor.put[z] = of_corrupt(z);
    std::vector<std::int64_t> of_mlp;
    for (std::size_t row = 0; row < members.size(); ++row) {
      const SweptPatch& patch = patches[members[row]];
      if (patch.site.kind == SiteKind::mlp_out) {
        of_mlp.push_back(static_cast<std::int64_t>(row));
        continue;
      }
      const std::int64_t begin = std::max<std::int64_t>(patch.site.head, 0) * head_dim;
      const std::int64_t width = patch.site.head < 0 ? clean_z.size(1) : head_dim;
      visitor.put[z][static_cast<std::int64_t>(row)]
          .narrow(0, begin, width)
          .copy_(clean_z[patch.position].narrow(0, begin, width));
    }
    // A pass patches heads or MLPs: the MLP of a patched head is computed.
    if (!of_mlp.empty() && of_mlp.size() < members.size())
      throw std::logic_error("a sweep patches heads and MLPs in turn");
    if (!of_mlp.empty()) visitor.put[mlp_out] = clean_mlp.index_select(0, at);
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &visitor;
    pass.start_after = layer - 1;
    pass.start_values = of_corrupt(before(layer));
    pass.stop_after = after;
    layer_tokens_ += static_cast<double>(transformer_.forward(pass).size());
    const at::Tensor& values = visitor.kept.at(after);
    for (std::size_t row = 0; row < members.size(); ++row)
      found.push_back({members[row], layer + 1, values[static_cast<std::int64_t>(row)]});
  }
  return found;
}

/// All patches of one position: from the lowest layer up, those that start at a layer join the rows there.
void PatchSweep::run_position(std::int64_t position, std::vector<Start> starts, std::vector<double>& m) const {
  const std::int64_t layers = transformer_.config().layers, own = length() - position;
  std::stable_sort(starts.begin(), starts.end(), [](const Start& a, const Start& b) { return a.layer < b.layer; });
  const std::vector<std::int64_t> tokens(pair_.corrupt.tokens.begin() + position, pair_.corrupt.tokens.end());
  const model::KeyValueCache prefix = model::first_tokens(corrupt_run_->cache, position);
  at::Tensor stream;  // [rows · own, width]
  std::size_t joined = 0;
  std::vector<at::Tensor> logits;
  const auto join = [&](std::int64_t layer) {
    std::vector<at::Tensor> parts;
    if (stream.defined()) parts.push_back(stream);
    const at::Tensor rest = corrupt_run_->kept.at(before(layer)).narrow(0, position, own);
    std::size_t end = joined;
    while (end < starts.size() && starts[end].layer == layer) ++end;
    if (end == joined) return;
    at::Tensor rows = rest.unsqueeze(0).repeat({static_cast<std::int64_t>(end - joined), 1, 1});
    for (std::size_t i = joined; i < end; ++i) rows[static_cast<std::int64_t>(i - joined)][0].copy_(starts[i].value);
    parts.push_back(rows.flatten(0, 1));
    stream = at::cat(parts);
    joined = end;
  };
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    join(layer);
    if (joined == 0) continue;
    const std::vector<model::Row> rows(joined, model::Row{tokens, length()});
    model::KeyValueCache held = prefix.fork(static_cast<std::int64_t>(joined));
    Exchange visitor;
    model::Pass pass;
    pass.rows = &rows;
    if (position > 0) {
      pass.cache = &held;
      pass.append = false;
    }
    pass.start_after = layer - 1;
    pass.start_values = stream;
    if (layer + 1 < layers) {
      visitor.keep = {SiteKind::resid_post};
      pass.visitor = &visitor;
      pass.stop_after = Site{SiteKind::resid_post, layer, -1};
    } else {
      std::vector<std::int64_t> last;
      for (std::size_t row = 0; row < joined; ++row) last.push_back(static_cast<std::int64_t>(row + 1) * own - 1);
      pass.logits_at = last;
      pass.on_logits = [&](std::int64_t, const at::Tensor& chunk) { logits.push_back(chunk); };
    }
    layer_tokens_ += static_cast<double>(transformer_.forward(pass).size());
    if (layer + 1 < layers) stream = visitor.kept.at({SiteKind::resid_post, layer, -1});
  }
  if (!logits.empty()) {
    const auto measured = measure(logits);
    for (std::size_t i = 0; i < measured.size(); ++i) m[starts[i].patch] = measured[i];
  }
  // What the last layer's own parts leave is read at the last position alone.
  std::vector<at::Tensor> tops;
  std::vector<std::size_t> whose;
  for (std::size_t i = joined; i < starts.size(); ++i) {
    if (own > 1) continue;
    tops.push_back(starts[i].value);
    whose.push_back(starts[i].patch);
  }
  if (tops.empty()) return;
  const std::vector<model::Row> rows(tops.size(), model::Row{tokens, length()});
  std::vector<std::int64_t> each(tops.size());
  std::iota(each.begin(), each.end(), 0);
  std::vector<at::Tensor> top_logits;
  model::Pass pass;
  pass.rows = &rows;
  pass.start_after = layers - 1;
  pass.start_values = at::stack(tops);
  pass.logits_at = each;
  pass.on_logits = [&](std::int64_t, const at::Tensor& chunk) { top_logits.push_back(chunk); };
  transformer_.forward(pass);
  const auto measured = measure(top_logits);
  for (std::size_t i = 0; i < measured.size(); ++i) m[whose[i]] = measured[i];
}

std::vector<double> PatchSweep::run(const std::vector<SweptPatch>& patches) const {
  const at::NoGradGuard no_grad;
  std::vector<double> m(patches.size(), corrupt_);
  std::map<bool, std::vector<std::size_t>> computed;  // MLPs apart
  for (std::size_t i = 0; i < patches.size(); ++i) {
    if (patches[i].position >= first_difference_) computed[patches[i].site.kind == SiteKind::mlp_out].push_back(i);
  }
  std::map<std::int64_t, std::vector<Start>> by_position;
  for (const auto& [mlps, members] : computed) {
    for (Start& start : starts(patches, members)) {
      const std::int64_t position = patches[start.patch].position;
      by_position[position].push_back(std::move(start));
    }
  }
  for (auto& [position, starts] : by_position) run_position(position, std::move(starts), m);
  return m;
}

ScreenedSweep screen(const PatchSweep& exact, const PatchSweep& screening, const std::vector<SweptPatch>& patches,
                     double threshold, std::uint64_t seed) {
  ScreenedSweep result;
  result.m = screening.run(patches);
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < patches.size(); ++i) {
    if (patches[i].position >= exact.first_difference()) order.push_back(i);
  }
  model::NormalSource random(seed);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  const auto chosen = [&](const std::vector<std::size_t>& which) {
    std::vector<SweptPatch> some;
    for (const std::size_t i : which) some.push_back(patches[i]);
    return exact.run(some);
  };
  const double whole = std::abs(exact.clean() - exact.corrupt());
  // Both are held to their own corrupt run: what shifts all of them alike is no error.
  const auto effect = [&](std::size_t i) { return result.m[i] - screening.corrupt(); };
  const std::vector<std::size_t> sample(order.begin(), order.begin() + std::min(order.size(), kSampled));
  const auto sampled = chosen(sample);
  for (std::size_t k = 0; k < sample.size(); ++k)
    result.error = std::max(result.error, 2 * std::abs(sampled[k] - exact.corrupt() - effect(sample[k])));
  result.sampled = std::ssize(sample);
  std::vector<std::size_t> unsure;
  for (const std::size_t i : order) {
    if (std::abs(std::abs(effect(i)) - threshold * whole) <= result.error) unsure.push_back(i);
  }
  const auto confirmed = chosen(unsure);
  result.confirmed = std::ssize(unsure);
  for (std::size_t i = 0; i < patches.size(); ++i) result.m[i] = exact.corrupt() + effect(i);
  for (std::size_t k = 0; k < sample.size(); ++k) result.m[sample[k]] = sampled[k];
  for (std::size_t k = 0; k < unsure.size(); ++k) result.m[unsure[k]] = confirmed[k];
  for (const double m : result.m) result.large.push_back(std::abs(m - exact.corrupt()) >= threshold * whole);
  return result;
}

}  // namespace proviso::runtime

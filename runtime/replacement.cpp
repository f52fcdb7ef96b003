#include "runtime/replacement.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace proviso::runtime {

using dsl::Site;
using dsl::SiteKind;

namespace {

at::Tensor lengths(const at::Tensor& rows) {
  return at::linalg_vector_norm(rows.detach().to(at::kFloat), 2, at::IntArrayRef{1});
}

std::vector<float> numbers(const at::Tensor& values) {
  const at::Tensor kept = values.to(at::kFloat).cpu().contiguous();
  return {kept.const_data_ptr<float>(), kept.const_data_ptr<float>() + kept.numel()};
}

Site last_output(const CircuitGraph& graph) { return {SiteKind::resid_post, graph.layers() - 1, -1}; }

}  // namespace

Site ReplacementProgram::reader_site(const CircuitGraph::Reading& reading) {
  const bool of_head = reading.kind == SiteKind::q || reading.kind == SiteKind::k || reading.kind == SiteKind::v;
  return {reading.kind, reading.layer, of_head ? reading.head : -1};
}

void ReplacementProgram::add_part(ReplacedPart part) {
  places_[part.number].insert(part.site);
  parts_.push_back(std::move(part));
}

std::size_t ReplacementProgram::add(const CircuitParts& circuit, double share, bool of_change) {
  const model::ModelConfig& config = transformer_.config();
  const std::size_t number = count_++;
  places_.emplace_back();
  if (circuit.nodes.defined()) {
    const auto has = circuit.nodes.accessor<bool, 1>();
    const auto add_node = [&](const Site& site, std::int64_t begin, std::int64_t width, const at::Tensor& mean) {
      const auto taken = std::any_of(parts_.begin(), parts_.end(), [&](const ReplacedPart& part) {
        return part.site == site && part.value.defined() && !part.condition;
      });
      if (!taken) add_part({number, site, begin, width, share, of_change, false, std::nullopt, mean});
    };
    for (std::int64_t layer = 0; layer < graph_.layers(); ++layer) {
      const auto l = static_cast<std::size_t>(layer);
      for (std::int64_t head = 0; head < graph_.heads(); ++head) {
        if (!has[graph_.first_head(layer) + head]) continue;
        const std::int64_t begin = head * config.head_dim;
        add_node({SiteKind::z, layer, head}, begin, config.head_dim,
                 circuit.corrupt.z[l].narrow(0, begin, config.head_dim));
      }
      if (has[graph_.mlp(layer)]) add_node({SiteKind::mlp_out, layer, -1}, 0, config.width, circuit.corrupt.mlp_out[l]);
    }
    return number;
  }
  const auto has = circuit.edges.accessor<bool, 2>();
  for (std::int64_t to = 0; to < graph_.destinations(); ++to) {
    for (std::int64_t from = 0; from < graph_.sources(); ++from) {
      if (!has[to][from] || edges_[to].contains(from)) continue;
      at::Tensor mean = circuit.corrupt.embed;
      Site source{SiteKind::embed};
      if (from > 0) {
        const std::int64_t layer = (from - 1) / (graph_.heads() + 1);
        const auto l = static_cast<std::size_t>(layer);
        mean = circuit.corrupt.mlp_out[l];
        source = {SiteKind::mlp_out, layer, -1};
        if (from != graph_.mlp(layer)) {
          source = {SiteKind::z, layer, from - graph_.first_head(layer)};
          mean = circuit.corrupt.z[l].narrow(0, source.head * config.head_dim, config.head_dim);
        }
      }
      edges_[to][from] = {number, share, of_change, source, mean};
      sources_.insert(from);
      places_[number].insert(reader_site(graph_.reading(to)));
    }
  }
  std::erase_if(edges_, [](const auto& each) { return each.second.empty(); });
  return number;
}

std::size_t ReplacementProgram::add(const std::vector<Site>& sites, const std::vector<at::Tensor>& values,
                                    ReplacedPart part) {
  const std::size_t number = count_++;
  places_.emplace_back();
  for (std::size_t i = 0; i < sites.size(); ++i) {
    part.number = number;
    part.site = sites[i];
    part.width = transformer_.card().site_width(sites[i]);
    part.begin = sites[i].head < 0 ? 0 : sites[i].head * part.width;
    part.value = values[i];
    add_part(part);
  }
  return number;
}

ReplacementPass::ReplacementPass(const ReplacementProgram& program)
    : program_(program), moved_(program.count()), activity_(program.count()) {}

void ReplacementPass::begin() {
  layout_ = nullptr;
  pending_ = at::Tensor();
  own_.clear();
  change_norms_.clear();
  for (Mask& mask : moved_) mask.clear();
}

bool ReplacementPass::wants(const Site& site) const {
  const auto& graph = program_.graph_;
  const auto is_source = [&](std::int64_t source) { return program_.sources_.contains(source); };
  if (site.kind == SiteKind::embed && is_source(0)) return true;
  if (site.kind == SiteKind::mlp_out && is_source(graph.mlp(site.layer))) return true;
  if (site.kind == SiteKind::z) {
    for (std::int64_t head = 0; head < graph.heads(); ++head) {
      if (is_source(graph.first_head(site.layer) + head)) return true;
    }
  }
  return std::any_of(program_.parts_.begin(), program_.parts_.end(), [&](const ReplacedPart& part) {
    return dsl::whole(part.site) == site || (part.direct && site == last_output(graph));
  });
}

at::Tensor ReplacementPass::after_first(at::Device device) const {
  return layout_->positions.to(device).ne(0).to(at::kFloat).unsqueeze(1);
}

ReplacementPass::Acting ReplacementPass::acting(std::size_t index, const at::Tensor& x, const Holds& holds) const {
  const ReplacedPart& part = program_.parts_[index];
  Acting acting;
  if (part.value.defined()) {
    acting.target = part.value.to(x.device()).unsqueeze(0).expand_as(x);
    acting.mask = after_first(x.device());
  } else {
    std::vector<at::Tensor> targets, masks;
    for (std::size_t row = 0; row < layout_->rows.size(); ++row) {
      const auto& span = layout_->rows[row];
      const at::Tensor donor = donors_ ? donors_(index, row) : at::Tensor();
      if (part.resampled && donor.defined()) {
        const at::Tensor places = at::arange(span.first_position, span.first_position + span.length);
        targets.push_back(donor.index_select(0, places.clamp_max(donor.size(0) - 1).to(donor.device())).to(x.device()));
        masks.push_back(places.ne(0).to(at::kFloat).unsqueeze(1).to(x.device()));
        continue;
      }
      // What is generated has no counterpart.
      const std::int64_t there =
          donor.defined() ? std::clamp<std::int64_t>(donor.size(0) - span.first_position, 0, span.length) : 0;
      if (there > 0) {
        targets.push_back(donor.narrow(0, span.first_position, there).to(x.device()));
        masks.push_back(at::ones({there, 1}, targets.back().options()));
      }
      if (there < span.length) {
        targets.push_back(at::zeros({span.length - there, part.width}, x.options().dtype(at::kFloat)));
        masks.push_back(at::zeros({span.length - there, 1}, targets.back().options()));
      }
    }
    acting.target = at::cat(targets);
    acting.mask = at::cat(masks);
  }
  if (part.condition) {
    const Mask& held = holds(*part.condition);
    const at::Tensor mask = at::tensor(at::ArrayRef<std::uint8_t>(held.data(), held.size()), at::kByte);
    acting.mask = acting.mask * mask.to(at::kFloat).to(x.device()).unsqueeze(1);
  }
  return acting;
}

at::Tensor ReplacementPass::in_stream(const Site& site, const at::Tensor& change) const {
  if (site.kind != SiteKind::z) return change;
  const model::ModelConfig& config = program_.transformer_.config();
  const at::Tensor weight =
      program_.transformer_.get(program_.transformer_.writer({SiteKind::attn_out, site.layer})->weight).to(at::kFloat);
  if (site.head < 0) return change.matmul(weight.t());
  return change.matmul(weight.narrow(1, site.head * config.head_dim, config.head_dim).t());
}

at::Tensor ReplacementPass::exchanged(const Site& place, const at::Tensor& change) {
  if (!control_) {
    if (measure_) change_norms_[place] = numbers(lengths(change));
    return change;
  }
  if (control_->kind != ControlKind::direction) return control_->exchanged(change, *layout_);
  const auto found = control_->norms.find(place);
  if (found == control_->norms.end()) return {};
  const auto length = at::tensor(found->second, at::kFloat).to(change.device()).unsqueeze(1);  // [n, 1]
  return length * control_->direction(place, change.size(1)).to(change.device());
}

void ReplacementPass::count(std::size_t number, const Site& place, const at::Tensor& x, const at::Tensor& distance,
                            const at::Tensor& mask, const at::Tensor& change) {
  const std::vector<float> size = numbers(lengths(change)), away = numbers(lengths(distance)),
                           acts = numbers(mask.squeeze(1));
  const std::vector<float> own = measure_ ? numbers(lengths(x)) : std::vector<float>(size.size(), 1.0F);
  Mask& moved = moved_[number];
  moved.resize(size.size(), 0);
  Activity& activity = activity_[number][place];
  for (const auto& span : layout_->rows) {
    for (std::int64_t j = 0; j < span.length; ++j) {
      const auto i = static_cast<std::size_t>(span.begin + j);
      moved[i] = moved[i] || size[i] > 0;
      const double relative = acts[i] > 0 && measure_ ? size[i] / std::max(own[i], 1e-30F) : 0;
      if (span.first_position + j == 0) {
        ++activity.firsts;
        activity.relative_change_at_0 += relative;
        continue;
      }
      activity.max = activity.positions == 0 ? away[i] : std::max<double>(activity.max, away[i]);
      ++activity.positions;
      activity.sum += away[i];
      activity.active += acts[i] > 0;
      activity.relative_change += relative;
    }
  }
}

void ReplacementPass::visit(const Site& site, at::Tensor& x, const model::PackedLayout& layout, const Holds& holds) {
  layout_ = &layout;
  const at::ScalarType dtype = x.scalar_type();
  for (std::size_t index = 0; index < program_.parts_.size(); ++index) {
    const ReplacedPart& part = program_.parts_[index];
    if (dsl::whole(part.site) != site) continue;
    const at::Tensor here = x.narrow(1, part.begin, part.width).to(at::kFloat);
    const Acting acts = acting(index, here, holds);
    const at::Tensor distance = acts.target - here;
    at::Tensor change = part.share * acts.mask * distance;
    if (!control_ || !part.of_change) count(part.number, part.site, here, distance, acts.mask, change);
    if (part.of_change) change = exchanged(part.site, change);
    if (!change.defined()) continue;
    if (part.direct) {
      change = in_stream(part.site, change);
      pending_ = pending_.defined() ? pending_ + change : change;
      continue;
    }
    // A new tensor: others may hold what was there, and gradients flow through the sum.
    at::Tensor changed = x.clone();
    changed.narrow(1, part.begin, part.width).copy_((here + change).to(dtype));
    x = changed;
  }
  if (pending_.defined() && site == last_output(program_.graph_)) x = (x.to(at::kFloat) + pending_).to(dtype);
  keep_written(site, x);
}

void ReplacementPass::keep_written(const Site& site, const at::Tensor& x) {
  const auto& graph = program_.graph_;
  const model::ModelConfig& config = program_.transformer_.config();
  const auto keep = [&](std::int64_t source, const auto& written) {
    if (program_.sources_.contains(source)) own_[source] = written().to(at::kFloat);
  };
  if (site.kind == SiteKind::embed) keep(0, [&] { return x; });
  if (site.kind == SiteKind::mlp_out) keep(graph.mlp(site.layer), [&] { return x; });
  if (site.kind == SiteKind::z) {
    for (std::int64_t head = 0; head < graph.heads(); ++head) {
      keep(graph.first_head(site.layer) + head, [&] {
        return in_stream({SiteKind::z, site.layer, head},
                         x.narrow(1, head * config.head_dim, config.head_dim).to(at::kFloat));
      });
    }
  }
}

at::Tensor ReplacementPass::input(SiteKind reader, std::int64_t layer, const at::Tensor& stream) {
  const auto readers = program_.graph_.readers(reader, layer);
  const bool of_heads = reader == SiteKind::q || reader == SiteKind::k || reader == SiteKind::v;
  std::vector<at::Tensor> inputs;  // one a head
  bool changed = false;
  for (std::int64_t i = 0; i < readers.count; ++i) {
    inputs.push_back(stream);
    const auto into = program_.edges_.find(readers.first + i);
    if (into == program_.edges_.end()) continue;
    const Site place = ReplacementProgram::reader_site(program_.graph_.reading(readers.first + i));
    const at::Tensor mask = after_first(stream.device());
    std::map<std::pair<std::size_t, bool>, std::pair<at::Tensor, at::Tensor>> sums;  // distance and change
    for (const auto& [source, edge] : into->second) {
      const at::Tensor distance = in_stream(edge.source, edge.mean.to(stream.device()).unsqueeze(0)) - own_.at(source);
      auto& [away, change] = sums[{edge.number, edge.of_change}];
      away = away.defined() ? away + distance : distance;
      change = change.defined() ? change + edge.share * mask * distance : edge.share * mask * distance;
    }
    const at::Tensor x = stream.to(at::kFloat);
    at::Tensor changed_to = x, of_change;
    for (const auto& [whose, sum] : sums) {
      if (!control_ || !whose.second) count(whose.first, place, x, sum.first, mask, sum.second);
      if (whose.second) {
        of_change = of_change.defined() ? of_change + sum.second : sum.second;
      } else {
        changed_to = changed_to + sum.second;
      }
    }
    if (of_change.defined()) of_change = exchanged(place, of_change);
    if (of_change.defined()) changed_to = changed_to + of_change;
    inputs.back() = changed_to.to(stream.scalar_type());
    changed = true;
  }
  if (!of_heads) return inputs.front();
  return changed ? at::stack(inputs, 1) : stream.unsqueeze(1).expand({-1, readers.count, -1});
}

}  // namespace proviso::runtime

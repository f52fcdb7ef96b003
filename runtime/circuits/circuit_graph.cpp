#include "runtime/circuits/circuit_graph.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

namespace proviso::runtime {

using dsl::SiteKind;

namespace {

/// Of the indices where `exists` holds the `count` whose scores are largest without their sign, ties to the earlier:
/// bools of the same shape.
at::Tensor largest(const at::Tensor& scores, const at::Tensor& exists, std::int64_t count) {
  const at::Tensor size = scores.to(at::kDouble).cpu().abs().contiguous();
  const double* value = size.const_data_ptr<double>();
  const bool* there = exists.const_data_ptr<bool>();
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < size.numel(); ++i) {
    if (there[i]) order.push_back(i);
  }
  count = std::min<std::int64_t>(count, std::ssize(order));
  const auto stronger = [&](std::int64_t a, std::int64_t b) {
    return std::pair(-value[a], a) < std::pair(-value[b], b);
  };
  std::nth_element(order.begin(), order.begin() + count, order.end(), stronger);
  at::Tensor kept = at::zeros_like(exists);
  for (std::int64_t i = 0; i < count; ++i) kept.mutable_data_ptr<bool>()[order[static_cast<std::size_t>(i)]] = true;
  return kept;
}

}  // namespace

CircuitGraph::Readers CircuitGraph::readers(SiteKind kind, std::int64_t layer) const {
  const std::int64_t first = layer * (3 * heads_ + 1);
  switch (kind) {
    case SiteKind::q:
      return {first, heads_, first_head(layer)};
    case SiteKind::k:
      return {first + heads_, heads_, first_head(layer)};
    case SiteKind::v:
      return {first + 2 * heads_, heads_, first_head(layer)};
    case SiteKind::mlp_pre:
      return {first + 3 * heads_, 1, parallel_ ? first_head(layer) : mlp(layer)};
    case SiteKind::final_norm:
      return {destinations() - 1, 1, sources()};
    default:
      throw std::logic_error("nothing reads the stream at " + std::string(dsl::site_name(kind)));
  }
}

CircuitGraph::Reading CircuitGraph::reading(std::int64_t destination) const {
  if (destination == destinations() - 1) return {SiteKind::final_norm, -1, 0};
  const std::int64_t layer = destination / (3 * heads_ + 1), within = destination % (3 * heads_ + 1);
  if (within == 3 * heads_) return {SiteKind::mlp_pre, layer, 0};
  static constexpr SiteKind kOfHeads[] = {SiteKind::q, SiteKind::k, SiteKind::v};
  return {kOfHeads[within / heads_], layer, within % heads_};
}

std::optional<std::int64_t> CircuitGraph::source_of(std::int64_t destination) const {
  const Reading at = reading(destination);
  if (at.kind == SiteKind::final_norm) return std::nullopt;
  return at.kind == SiteKind::mlp_pre ? mlp(at.layer) : first_head(at.layer) + at.head;
}

std::int64_t CircuitGraph::edges() const {
  std::int64_t count = sources();
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    count += 3 * heads_ * first_head(layer) + readers(SiteKind::mlp_pre, layer).sources;
  }
  return count;
}

std::string CircuitGraph::source_name(std::int64_t source) const {
  if (source == 0) return "embed";
  const std::int64_t layer = (source - 1) / (heads_ + 1), within = (source - 1) % (heads_ + 1);
  if (within == heads_) return "m" + std::to_string(layer);
  return "a" + std::to_string(layer) + ".h" + std::to_string(within);
}

std::string CircuitGraph::destination_name(std::int64_t destination) const {
  const auto source = source_of(destination);
  if (!source) return "logits";
  const Reading at = reading(destination);
  if (at.kind == SiteKind::mlp_pre) return source_name(*source);
  return source_name(*source) + "<" + std::string(dsl::site_name(at.kind)) + ">";
}

at::Tensor CircuitGraph::all() const {
  at::Tensor edges = at::zeros({destinations(), sources()}, at::kBool);
  for (std::int64_t destination = 0; destination < destinations(); ++destination) {
    const Reading at = reading(destination);
    edges[destination].narrow(0, 0, readers(at.kind, at.layer).sources).fill_(true);
  }
  return edges;
}

at::Tensor CircuitGraph::strongest(const at::Tensor& scores, std::int64_t count) const {
  return largest(scores, all(), count);
}

at::Tensor CircuitGraph::grown(const at::Tensor& scores, std::int64_t count) const {
  const at::Tensor size = scores.to(at::kDouble).cpu().abs().contiguous();
  const double* value = size.const_data_ptr<double>();
  const auto before = [](const auto& a, const auto& b) { return a < b; };  // the largest first, then the earliest
  std::set<std::tuple<double, std::int64_t, std::int64_t>, decltype(before)> open(before);
  const auto reach = [&](std::int64_t destination) {
    const Reading at = reading(destination);
    for (std::int64_t source = 0; source < readers(at.kind, at.layer).sources; ++source)
      open.emplace(-value[destination * sources() + source], destination, source);
  };
  std::map<std::int64_t, std::vector<std::int64_t>> inputs;  // by node
  for (std::int64_t destination = 0; destination < destinations(); ++destination) {
    if (const auto node = source_of(destination)) inputs[*node].push_back(destination);
  }
  at::Tensor kept = at::zeros({destinations(), sources()}, at::kBool);
  auto keeps = kept.accessor<bool, 2>();
  reach(destinations() - 1);
  for (std::int64_t chosen = 0; chosen < count && !open.empty(); ++chosen) {
    const auto [strength, destination, source] = *open.begin();
    open.erase(open.begin());
    keeps[destination][source] = true;
    const auto of_node = inputs.extract(source);  // the first edge out of a node opens those into it
    if (of_node.empty()) continue;
    for (const std::int64_t into : of_node.mapped()) reach(into);
  }
  return kept;
}

at::Tensor CircuitGraph::touched(const at::Tensor& edges) const {
  at::Tensor nodes = edges.any(0);
  for (std::int64_t destination = 0; destination < destinations(); ++destination) {
    const auto node = source_of(destination);
    if (node && edges[destination].any().item<bool>()) nodes[*node] = true;
  }
  nodes[0] = true;
  return nodes;
}

at::Tensor CircuitGraph::strongest_nodes(const at::Tensor& scores, std::int64_t count) const {
  at::Tensor nodes = at::ones({sources()}, at::kBool);
  nodes[0] = false;
  nodes = largest(scores, nodes, count);
  nodes[0] = true;
  return nodes;
}

at::Tensor CircuitGraph::between(const at::Tensor& nodes) const {
  at::Tensor edges = all().logical_and(nodes);
  for (std::int64_t destination = 0; destination < destinations(); ++destination) {
    const auto node = source_of(destination);
    if (node && !nodes[*node].item<bool>()) edges[destination].fill_(false);
  }
  return edges;
}

at::Tensor CircuitGraph::alive(const at::Tensor& edges) const {
  const auto has = edges.accessor<bool, 2>();
  std::vector<bool> reached(static_cast<std::size_t>(sources())), leads_on(reached.size());
  reached[0] = true;
  for (std::int64_t destination = 0; destination < destinations(); ++destination) {
    const auto node = source_of(destination);
    for (std::int64_t source = 0; node && source < *node; ++source) {
      if (has[destination][source] && reached[static_cast<std::size_t>(source)])
        reached[static_cast<std::size_t>(*node)] = true;
    }
  }
  const auto ends_well = [&](std::int64_t destination) {
    const auto node = source_of(destination);
    return !node || leads_on[static_cast<std::size_t>(*node)];
  };
  for (std::int64_t destination = destinations() - 1; destination >= 0; --destination) {
    if (!ends_well(destination)) continue;
    for (std::int64_t source = 0; source < sources(); ++source) {
      if (has[destination][source]) leads_on[static_cast<std::size_t>(source)] = true;
    }
  }
  at::Tensor kept = at::zeros_like(edges);
  auto keeps = kept.accessor<bool, 2>();
  for (std::int64_t destination = 0; destination < destinations(); ++destination) {
    if (!ends_well(destination)) continue;
    for (std::int64_t source = 0; source < sources(); ++source) {
      keeps[destination][source] = has[destination][source] && reached[static_cast<std::size_t>(source)];
    }
  }
  return kept;
}

}  // namespace proviso::runtime

#include "editing/node_ablation.hpp"

#include <ATen/ATen.h>

#include <map>
#include <string>

namespace proviso::editing {

using dsl::SiteKind;

std::variant<std::vector<WeightDelta>, Refusal> ablate_nodes(const model::Transformer& transformer,
                                                             const std::vector<AblatedNode>& nodes, double strength) {
  std::vector<WeightDelta> deltas;
  const std::int64_t head_dim = transformer.config().head_dim;
  std::map<dsl::Site, std::vector<const AblatedNode*>> by_site;  // heads of one layer share their map
  for (const auto& node : nodes)
    by_site[{node.head < 0 ? SiteKind::mlp_out : SiteKind::attn_out, node.layer, -1}].push_back(&node);
  for (const auto& [site, members] : by_site) {
    const auto writer = transformer.writer(site);
    if (!writer)
      return Refusal{"what is written at " + dsl::to_string(site) + " passes a norm before it joins the stream"};
    const auto weight = transformer.get(writer->weight).to(at::kCPU, at::kDouble);
    const auto bias = writer->bias.empty() ? at::Tensor() : transformer.get(writer->bias);
    at::Tensor constant = at::zeros({weight.size(0)}, at::kDouble);  // what is added to the bias
    if (site.kind == SiteKind::mlp_out) {
      deltas.push_back({writer->weight, -strength * at::eye(weight.size(0), at::kDouble), weight});
      constant = strength * members.front()->constant.to(at::kCPU, at::kDouble);
      if (bias.defined()) constant = constant - strength * bias.to(at::kCPU, at::kDouble);
    } else {
      const auto width = static_cast<std::int64_t>(members.size()) * head_dim;
      at::Tensor left = at::empty({weight.size(0), width}, at::kDouble),
                 right = at::zeros({width, weight.size(1)}, at::kDouble);
      std::int64_t row = 0;
      for (const auto* node : members) {
        const auto columns = weight.narrow(1, node->head * head_dim, head_dim);
        left.narrow(1, row, head_dim).copy_(columns).mul_(-strength);
        right.narrow(0, row, head_dim).narrow(1, node->head * head_dim, head_dim).copy_(at::eye(head_dim, at::kDouble));
        constant = constant + strength * columns.mv(node->constant.to(at::kCPU, at::kDouble));
        row += head_dim;
      }
      deltas.push_back({writer->weight, left, right});
    }
    if (constant.count_nonzero().item<std::int64_t>() == 0) continue;
    if (writer->bias.empty())
      return Refusal{"it adds a constant to " + dsl::to_string(site) +
                     ", whose map has no bias in this family; write `ablate(to: zero)`"};
    deltas.push_back({writer->bias, constant.unsqueeze(1), at::ones({1, 1}, at::kDouble)});
  }
  return deltas;
}

}  // namespace proviso::editing

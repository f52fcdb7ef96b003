#include "editing/fold.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace proviso::editing {
namespace {

using dsl::SiteKind;

/// The request as one affine map of the site: y' = y − P D y + offset, with P = D⁺(I − A).
struct AffineChange {
  at::Tensor D;       // [k, width]
  at::Tensor P;       // [width, k]
  at::Tensor offset;  // [width]
};

AffineChange affine_change(const FoldRequest& request) {
  const auto D_pinv = at::linalg_pinv(request.directions, kPseudoInverseCutOff);  // [width, k]
  const auto lost = 1 - request.gains;
  return {request.directions, D_pinv * lost, D_pinv.mv(lost * request.zeros + request.scales * request.targets)};
}

bool is_zero(const at::Tensor& x) { return !x.any().item<bool>(); }

/// For a map whose outputs are its rows' dot products: weight [d_out, d_in].
WeightDelta fold_columns(std::string name, const at::Tensor& W, const AffineChange& change) {
  return {std::move(name), -change.P, change.D.mm(W.to(at::kDouble))};
}

/// For a table whose rows are outputs: [entries, width]. With D⁺ as the right factor the offset costs no rank:
/// it lies in the span of the directions.
WeightDelta fold_rows(std::string name, const at::Tensor& table, const FoldRequest& request, bool with_offset) {
  const auto lost = 1 - request.gains;
  auto left = -table.to(at::kDouble).mm(request.directions.t()) * lost;  // [entries, k]
  if (with_offset) left += lost * request.zeros + request.scales * request.targets;
  return {std::move(name), left, at::linalg_pinv(request.directions, kPseudoInverseCutOff).t().contiguous()};
}

}  // namespace

FoldRequest removal(const at::Tensor& directions, double strength) {
  const auto D = directions.to(at::kDouble);
  const auto k = D.size(0);
  return {D, at::full({k}, 1 - strength, D.options()), at::zeros({k}, D.options()), at::zeros({k}, D.options()),
          at::ones({k}, D.options())};
}

at::Tensor least_change_write(const FoldRequest& request, const at::Tensor& y) {
  const auto [D, P, offset] = affine_change(request);
  const auto x = y.to(at::kDouble);
  return x - x.mm(D.t()).mm(P.t()) + offset;
}

std::variant<std::vector<WeightDelta>, Refusal> fold(const FoldRequest& request, const model::Transformer& transformer,
                                                     const dsl::Site& site) {
  const at::NoGradGuard no_grad;
  const auto writer = transformer.writer(site);
  if (!writer) return Refusal{dsl::to_string(site) + " is not written by a linear map alone"};

  std::vector<WeightDelta> deltas;
  const auto weight = transformer.get(writer->weight).cpu();
  if (site.kind == SiteKind::embed) {
    // Every position is the sum of a token row and, in some families, a position row: the offset joins one of them.
    deltas.push_back(fold_rows(writer->weight, weight, request, /*with_offset=*/true));
    if (const auto positions = transformer.position_embedding_name(); !positions.empty())
      deltas.push_back(fold_rows(positions, transformer.get(positions).cpu(), request, /*with_offset=*/false));
    std::erase_if(deltas, [](const WeightDelta& delta) { return is_zero(delta.left); });
    return deltas;
  }

  const auto change = affine_change(request);
  if (!is_zero(change.P)) deltas.push_back(fold_columns(writer->weight, weight, change));
  const auto bias = writer->bias.empty() ? at::Tensor() : transformer.get(writer->bias);
  auto bias_change = change.offset;
  if (bias.defined()) bias_change = bias_change - change.P.mv(change.D.mv(bias.cpu().to(at::kDouble)));
  if (is_zero(bias_change)) return deltas;
  if (writer->bias.empty())
    return Refusal{"it adds a constant to " + dsl::to_string(site) + ", whose map has no bias in this family"};
  deltas.push_back({writer->bias, bias_change.unsqueeze(1), at::ones({1, 1}, bias_change.options())});
  return deltas;
}

}  // namespace proviso::editing

#include "editing/fold.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace proviso::editing {
namespace {

using dsl::SiteKind;

bool is_zero(const at::Tensor& x) { return !x.any().item<bool>(); }

/// For a map whose outputs are its rows' dot products: weight [d_out, d_in].
WeightDelta fold_columns(std::string name, const at::Tensor& W, const AffineWrite& change) {
  return {std::move(name), -change.write, change.read.mm(W.to(at::kDouble))};
}

/// For a table whose rows, times `scale`, are outputs: [entries, width]. The constant costs no rank: it is written
/// along the same.
WeightDelta fold_rows(std::string name, const at::Tensor& table, const AffineWrite& change, bool with_constant,
                      double scale = 1) {
  auto left = -table.to(at::kDouble).mm(change.read.t());  // [entries, k]
  if (with_constant) left += change.constant / scale;
  return {std::move(name), left, change.write.t().contiguous()};
}

}  // namespace

AffineWrite affine_write(const FoldRequest& request) {
  const auto lost = 1 - request.gains;
  return {at::linalg_pinv(request.directions, kPseudoInverseCutOff), lost.unsqueeze(1) * request.directions,
          lost * request.zeros + request.scales * request.targets};
}

FoldRequest removal(const at::Tensor& directions, double strength) {
  const auto D = directions.to(at::kDouble);
  const auto k = D.size(0);
  return {D, at::full({k}, 1 - strength, D.options()), at::zeros({k}, D.options()), at::zeros({k}, D.options()),
          at::ones({k}, D.options())};
}

at::Tensor least_change_write(const FoldRequest& request, const at::Tensor& y) {
  const auto [write, read, constant] = affine_write(request);
  const auto x = y.to(at::kDouble);
  return x + (constant - x.mm(read.t())).mm(write.t());
}

std::variant<std::vector<WeightDelta>, Refusal> fold(const FoldRequest& request, const model::Transformer& transformer,
                                                     const dsl::Site& site) {
  return fold(affine_write(request), transformer, site);
}

std::variant<std::vector<WeightDelta>, Refusal> fold(const AffineWrite& change, const model::Transformer& transformer,
                                                     const dsl::Site& site) {
  const at::NoGradGuard no_grad;
  const auto writer = transformer.writer(site);
  if (!writer) return Refusal{dsl::to_string(site) + " is not written by a linear map alone"};

  std::vector<WeightDelta> deltas;
  const auto weight = transformer.get(writer->weight).cpu();
  if (site.kind == SiteKind::embed) {
    // Every position is the sum of a token row and, in some families, a position row: the constant joins one of them.
    deltas.push_back(fold_rows(writer->weight, weight, change, /*with_constant=*/true, writer->scale));
    if (const auto positions = transformer.position_embedding_name(); !positions.empty())
      deltas.push_back(fold_rows(positions, transformer.get(positions).cpu(), change, /*with_constant=*/false));
    std::erase_if(deltas, [](const WeightDelta& delta) { return is_zero(delta.left); });
    return deltas;
  }

  if (!is_zero(change.read)) deltas.push_back(fold_columns(writer->weight, weight, change));
  const auto bias = writer->bias.empty() ? at::Tensor() : transformer.get(writer->bias);
  auto constant = change.constant;
  if (bias.defined()) constant = constant - change.read.mv(bias.cpu().to(at::kDouble));
  const auto bias_change = change.write.mv(constant);  // [width]
  if (is_zero(bias_change)) return deltas;
  if (writer->bias.empty())
    return Refusal{"it adds a constant to " + dsl::to_string(site) + ", whose map has no bias in this family"};
  deltas.push_back({writer->bias, bias_change.unsqueeze(1), at::ones({1, 1}, bias_change.options())});
  return deltas;
}

std::vector<WeightDelta> norms_kept(const std::vector<WeightDelta>& deltas, const model::Transformer& transformer,
                                    const dsl::Site& site) {
  constexpr double kLeastShare = 1e-6;  // of a norm: less is rounding, and no length to scale
  std::vector<WeightDelta> kept;
  for (const auto& delta : deltas) {
    const auto before = tensor_to_change(transformer, delta).cpu().to(at::kDouble);
    const bool bias = before.dim() == 1;
    const std::int64_t written = bias || site.kind != SiteKind::embed ? 0 : 1;  // the dimension of the stream
    const auto after = bias ? before + delta.left.cpu().mm(delta.right.cpu()).squeeze(1)
                            : before.addmm(delta.left.cpu(), delta.right.cpu());
    const auto old_norms = before.norm(2, {written}, true), new_norms = after.norm(2, {written}, true);
    const auto scale = at::where(new_norms > kLeastShare * old_norms, old_norms / new_norms, at::ones_like(new_norms));
    const auto change = after * scale - before;
    if (bias)
      kept.push_back({delta.tensor, change.unsqueeze(1), at::ones({1, 1}, change.options())});
    else
      kept.push_back(whole_change(delta.tensor, change));
  }
  return kept;
}

}  // namespace proviso::editing

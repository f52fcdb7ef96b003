#include "runtime/perturbation.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "runtime/model/random.hpp"

namespace proviso::runtime {

PassPerturbation in_pass(const Perturbation& perturbation, const model::PackedLayout& layout, at::Device device,
                         const std::function<std::vector<std::int64_t>(std::size_t row)>& prompt) {
  std::vector<at::Tensor> parts;
  for (std::size_t r = 0; r < layout.rows.size(); ++r) {
    const auto& row = layout.rows[r];
    const at::Tensor& directions = perturbation.prompts.at(prompt(r)).directions;
    const std::int64_t inside = std::clamp<std::int64_t>(directions.size(0) - row.first_position, 0, row.length);
    if (inside > 0) parts.push_back(directions.narrow(0, row.first_position, inside));
    if (inside < row.length) parts.push_back(at::zeros({row.length - inside, directions.size(1)}));
  }
  return {perturbation.site, perturbation.share, at::cat(parts).to(device)};
}

at::Tensor perturbed(const at::Tensor& x, const at::Tensor& directions, double share) {
  const auto values = x.to(at::kFloat);
  const auto lengths = at::linalg_vector_norm(values.detach(), 2, at::IntArrayRef{1}, /*keepdim=*/true);
  return (values + share * lengths * directions).to(x.scalar_type());
}

at::Tensor drawn_directions(std::int64_t tokens, std::int64_t width, std::uint64_t seed) {
  model::NormalSource random(seed);
  auto directions = at::zeros({tokens, width}, at::kDouble);
  auto* values = directions.mutable_data_ptr<double>();
  for (std::int64_t i = width; i < tokens * width; ++i) values[i] = random.next();
  return (directions / at::linalg_vector_norm(directions, 2, at::IntArrayRef{1}, true).clamp_min(1e-30)).to(at::kFloat);
}

dsl::Site perturbed_site(const dsl::Attack& attack) {
  if (!attack.layer) return {dsl::SiteKind::embed, -1, -1};
  return {dsl::SiteKind::resid_post, *attack.layer, -1};
}

}  // namespace proviso::runtime

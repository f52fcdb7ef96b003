#include "runtime/activity.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/model/random.hpp"

namespace proviso::runtime {

Activity& Activity::operator+=(const Activity& other) {
  max = positions == 0 ? other.max : other.positions == 0 ? max : std::max(max, other.max);
  positions += other.positions;
  branches.resize(std::max(branches.size(), other.branches.size()));
  for (std::size_t i = 0; i < other.branches.size(); ++i) branches[i] += other.branches[i];
  active += other.active;
  sum += other.sum;
  relative_change += other.relative_change;
  relative_change_at_0 += other.relative_change_at_0;
  firsts += other.firsts;
  return *this;
}

at::Tensor ControlChange::direction(const dsl::Site& site, std::int64_t width) const {
  std::uint64_t of_site = model::mix_seed(seed, static_cast<int>(site.kind), site.layer);
  if (site.head >= 0) of_site = model::mix_seed(of_site, site.head);
  model::NormalSource source(of_site);
  auto direction = at::empty({width}, at::kDouble);
  auto* values = direction.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < width; ++i) values[i] = source.next();
  return (direction / direction.norm()).to(at::kFloat);
}

at::Tensor ControlChange::exchanged(const at::Tensor& change, const model::PackedLayout& layout) const {
  if (kind == ControlKind::wrong_sign) return -change;
  std::vector<std::int64_t> from(static_cast<std::size_t>(change.size(0)));
  std::iota(from.begin(), from.end(), 0);
  for (const auto& span : layout.rows) {
    const std::int64_t first = span.begin + (span.first_position == 0 ? 1 : 0), end = span.begin + span.length;
    // Drawn for the row's length alone: a prompt is moved alike in every pass and at every site.
    model::NormalSource random(model::mix_seed(seed, span.length));
    for (std::int64_t i = end - 1; i > first; --i) {
      const auto other = first + static_cast<std::int64_t>(random.below(static_cast<std::size_t>(i - first)));
      std::swap(from[static_cast<std::size_t>(i)], from[static_cast<std::size_t>(other)]);
    }
  }
  return change.index_select(0, at::tensor(from, at::kLong).to(change.device()));
}

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/control_kind.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// How something that acts in passes behaved, over all of them; position 0 is left out.
struct Activity {
  std::int64_t positions = 0;
  std::int64_t active = 0;             ///< its condition held
  std::vector<std::int64_t> branches;  ///< an alternative of its `or` held, each
  double sum = 0, max = 0;             ///< of the activation before the intervention, over `positions`
  double relative_change = 0;          ///< Σ ‖Δx‖/‖x‖ over the active positions
  double relative_change_at_0 = 0;     ///< Σ over sequences' first positions
  std::int64_t firsts = 0;

  Activity& operator+=(const Activity& other);
};

/// What a control does in place of an `effect`'s change.
struct ControlChange {
  ControlKind kind = ControlKind::direction;
  std::uint64_t seed = 0;
  std::map<dsl::Site, std::vector<float>> norms;  ///< ‖Δx‖ by token of the pass, where the change wrote

  /// The direction at a site, or at one head's part of it: [width] float32 of length 1, equal on every machine.
  at::Tensor direction(const dsl::Site& site, std::int64_t width) const;
  /// The change [n, …] of a pass's tokens, turned round or at other positions. Rows of one token keep their own.
  at::Tensor exchanged(const at::Tensor& change, const model::PackedLayout& layout) const;
};

}  // namespace proviso::runtime

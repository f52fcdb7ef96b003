#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "runtime/model/pass_groups.hpp"
#include "runtime/passes/passes.hpp"

namespace proviso::runtime::passes {

namespace {}

/// Sequences that no prefix groups go together, longest first, up to a pass's tokens.
Plan batch(Plan plan, const BoundRules&) {
  for (auto& run : plan.runs) {
    std::set<SequenceId> placed;
    for (const auto& batch : run.batches) placed.insert(batch.sequences.begin(), batch.sequences.end());
    std::vector<SequenceId> rest;
    for (const auto& [id, wants] : run.wants) {
      if (!placed.contains(id)) rest.push_back(id);
    }
    const auto length = [&](SequenceId id) { return static_cast<std::int64_t>(plan.sequences[id].tokens.size()); };
    std::stable_sort(rest.begin(), rest.end(), [&](SequenceId a, SequenceId b) { return length(a) > length(b); });
    Batch open;
    std::int64_t tokens = 0;
    for (SequenceId id : rest) {
      if (!open.sequences.empty() && tokens + length(id) > model::kTokensInPass) {
        run.batches.push_back(std::exchange(open, {}));
        tokens = 0;
      }
      open.sequences.push_back(id);
      tokens += length(id);
    }
    if (!open.sequences.empty()) run.batches.push_back(std::move(open));
  }
  return plan;
}

}  // namespace proviso::runtime::passes

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/passes/passes.hpp"

namespace proviso::runtime::passes {

namespace {

/// The last site that a sequence's wants read or its state's sentences write, or nothing where logits are needed.
std::optional<dsl::Site> last_site(const Wants& wants, const ModelState& state, const BoundRules& bound) {
  // Where a circuit acts is not known before it is found.
  if (!wants.logits.empty() || wants.final_states || wants.kl || !state.replacements.empty()) return std::nullopt;
  std::optional<dsl::Site> last;
  const auto reach = [&](const dsl::Site& site) {
    if (!last || *last < site) last = dsl::whole(site);
  };
  for (dsl::FeatureId feature : wants.features) reach(bound.feature_sites[feature]);
  // A sentence that the pass does not reach would look as if it had changed nothing.
  for (const auto& sentence : state.sentences) std::for_each(sentence.hooks.begin(), sentence.hooks.end(), reach);
  return last;
}

}  // namespace

/// Splits each run in two: what needs logits, and what ends at the last site read.
Plan stop_early(Plan plan, const BoundRules& bound) {
  std::vector<Run> runs;
  for (auto& run : plan.runs) {
    Run whole{run.state, {}, std::nullopt, {}}, early{run.state, {}, std::nullopt, {}};
    for (auto& [sequence, wants] : run.wants) {
      const auto last = last_site(wants, plan.states[run.state], bound);
      if (last && (!early.stop_after || *early.stop_after < *last)) early.stop_after = last;
      (last ? early : whole).wants.emplace(sequence, std::move(wants));
    }
    for (Run* part : {&early, &whole}) {
      if (!part->wants.empty()) runs.push_back(std::move(*part));
    }
  }
  plan.runs = std::move(runs);
  return plan;
}

}  // namespace proviso::runtime::passes

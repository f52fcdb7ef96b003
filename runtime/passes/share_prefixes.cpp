#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/condition.hpp"
#include "runtime/passes/passes.hpp"

namespace proviso::runtime::passes {

namespace {

// A prefix pass costs a small call of its own: below this many tokens saved it is not worth it.
constexpr std::int64_t kLeastSaving = 64;
// Prefixes within prefixes beyond this depth share the outermost.
constexpr int kDeepestSplit = 32;

/// Whether the state's conditions ask about the whole prompt, or each takes values from another one: then only prompts
/// with the same text may share.
bool depends_on_prompt(const ModelState& state) {
  if (state.source && state.source->kind == dsl::Ablation::resample) return true;
  return std::any_of(state.sentences.begin(), state.sentences.end(), [](const PlannedSentence& s) {
    return s.sentence.condition && reads_prompt(*s.sentence.condition);
  });
}

/// Groups of sequences in lexicographic order; every group shares as many tokens as saves most in all.
class Grouping {
 public:
  Grouping(const Plan& plan, std::vector<SequenceId> ids) : plan_(plan), ids_(std::move(ids)) {
    std::sort(ids_.begin(), ids_.end(),
              [&](SequenceId a, SequenceId b) { return plan_.sequences[a].tokens < plan_.sequences[b].tokens; });
    common_.resize(ids_.size(), 0);
    for (std::size_t i = 1; i < ids_.size(); ++i) common_[i] = shareable(ids_[i - 1], ids_[i]);
  }

  /// Appends the groups worth sharing.
  void groups(std::vector<Batch>& out) const {
    if (!ids_.empty()) collect(0, ids_.size(), 0, out);
  }

 private:
  // Every sequence keeps its last prompt token, and one token of its own, out of the prefix.
  std::int64_t limit(SequenceId id) const {
    const auto& sequence = plan_.sequences[id];
    return std::min<std::int64_t>(sequence.prompt_length, static_cast<std::int64_t>(sequence.tokens.size())) - 1;
  }

  std::int64_t shareable(SequenceId a, SequenceId b) const {
    const auto& x = plan_.sequences[a].tokens;
    const auto& y = plan_.sequences[b].tokens;
    const auto most = static_cast<std::size_t>(std::max<std::int64_t>(0, std::min(limit(a), limit(b))));
    return std::mismatch(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(most), y.begin()).first - x.begin();
  }

  /// Best grouping of [begin, end): all at their common prefix, or split where it is shortest.
  std::int64_t collect(std::size_t begin, std::size_t end, int depth, std::vector<Batch>& out) const {
    if (end - begin < 2) return 0;
    const std::int64_t shared = *std::min_element(common_.begin() + begin + 1, common_.begin() + end);
    const std::int64_t together = shared * static_cast<std::int64_t>(end - begin - 1);
    std::vector<Batch> parts;
    std::int64_t apart = 0;
    std::size_t from = begin;
    for (std::size_t i = begin + 1; depth < kDeepestSplit && i <= end; ++i) {
      if (i < end && common_[i] != shared) continue;
      if (i - from < end - begin) apart += collect(from, i, depth + 1, parts);
      from = i;
    }
    if (together >= apart && together >= kLeastSaving) {
      Batch all;
      all.sequences.assign(ids_.begin() + begin, ids_.begin() + end);
      all.shared_prefix = shared;
      out.push_back(std::move(all));
      return together;
    }
    for (auto& part : parts) out.push_back(std::move(part));
    return apart;
  }

  const Plan& plan_;
  std::vector<SequenceId> ids_;
  std::vector<std::int64_t> common_;  // tokens that i shares with i − 1
};

}  // namespace

Plan share_prefixes(Plan plan, const BoundRules&) {
  for (auto& run : plan.runs) {
    if (plan.states[run.state].perturbed) continue;  // what is added to a position depends on what follows it
    // What is drawn for a prompt's positions is drawn for all of them together.
    if (plan.states[run.state].control_kind == ControlKind::positions) continue;
    const bool by_prompt = depends_on_prompt(plan.states[run.state]);
    std::map<std::string, std::vector<SequenceId>> alike;  // by the prompt where it matters
    for (const auto& [id, wants] : run.wants) alike[by_prompt ? plan.sequences[id].prompt : ""].push_back(id);
    for (auto& [key, ids] : alike) Grouping(plan, std::move(ids)).groups(run.batches);
  }
  return plan;
}

}  // namespace proviso::runtime::passes

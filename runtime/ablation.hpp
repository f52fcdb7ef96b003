#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/condition.hpp"
#include "runtime/hooks.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/plan.hpp"

namespace proviso::runtime {

/// One prompt as it is before anything is taken out of it.
struct PromptReading {
  std::vector<std::int64_t> tokens;
  std::map<FeaturePlace, std::vector<float>> products;  ///< d·x, of a latent its activation, by position
  std::map<dsl::Site, Mask> ordinary;                   ///< positions that count: neither 0 nor a secondary sink
};

/// What whole features are set to where an effect takes them out, by the kind of ablation:
/// - zero: d·x = 0, wherever the feature's own zero is.
/// - mean: the mean of d·x over the prompts read; positions that count, each prompt weighing one.
/// - resample: d·x of another prompt of the same set. Which one is drawn by the seed, so that none is its own:
///   Sattolo's algorithm, one cycle through them. Prompts of one token have nothing to give. A token takes the value at
///   the same place counted from the prompts' ends, and where the other prompt has none there, or a sink, that of its
///   nearest position that counts, the later of two.
class AblationValues {
 public:
  /// `sets`: of `zero` none; of `mean` at least one prompt of two tokens, of `resample` two in each set, no two equal.
  AblationValues(dsl::Ablation kind, std::vector<std::vector<PromptReading>> sets, std::uint64_t seed);
  /// Of a patch: by prompt, the reading of another of as many tokens, which gives what it has at the same place, the
  /// first position included; past the prompt what it has at its last.
  explicit AblationValues(std::vector<std::pair<std::vector<std::int64_t>, PromptReading>> donors);

  /// For the token at `position` of a sequence that begins with `prompt`, one of those read.
  float at(const FeaturePlace& place, std::span<const std::int64_t> prompt, std::int64_t position) const;

 private:
  void average();
  void draw(const std::vector<PromptReading>& set, std::uint64_t seed);

  dsl::Ablation kind_;
  bool place_by_place_ = false;
  std::vector<std::vector<PromptReading>> sets_;
  std::map<FeaturePlace, float> means_;
  /// Looked up at every token: without a copy of the prompt.
  struct InOrder {
    using is_transparent = void;
    bool operator()(const auto& a, const auto& b) const { return std::ranges::lexicographical_compare(a, b); }
  };
  std::map<std::vector<std::int64_t>, const PromptReading*, InOrder> donors_;  // by the prompt that takes from them
};

/// Reads `places` on prompts, under a finished program's hooks; the program keeps their products and the norms of their
/// sink sites.
std::vector<PromptReading> read_prompts(const model::Transformer& transformer, const HookProgram& program,
                                        const std::set<FeaturePlace>& places,
                                        const std::vector<const Sequence*>& prompts);

}  // namespace proviso::runtime

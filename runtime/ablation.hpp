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

/// Which prompt of a set each takes from under `resample`, by the lengths of the prompts: drawn so that none is its
/// own, by Sattolo's algorithm, one cycle through them. Prompts of one token have nothing to give; two others are
/// needed.
std::vector<std::size_t> resampled_from(const std::vector<std::size_t>& lengths, std::uint64_t seed);
/// Where a token at `position` of a sequence that begins with a prompt of `length` tokens takes it: at the same place
/// counted from the prompts' ends, and where the other has none there, or a sink, at that of its positions that
/// `count` which is nearest, the later of two; none counts where numbers are NaN.
std::int64_t resampled_position(std::int64_t position, std::int64_t length, const Mask& count);

/// What whole features are set to where an effect takes them out, by the kind of ablation:
/// - zero: d·x = 0, wherever the feature's own zero is.
/// - mean: the mean of d·x over the prompts read; positions that count, each prompt weighing one.
/// - resample: d·x of another prompt of the same set, as `resampled_from` and `resampled_position` say.
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

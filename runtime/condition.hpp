#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dsl/condition_logic.hpp"
#include "dsl/rule_set.hpp"
#include "runtime/model/transformer.hpp"

namespace re2 {
class RE2;
}

namespace proviso::runtime {

using Mask = std::vector<std::uint8_t>;  // one a packed token

/// What conditions remember of one sequence between its passes (prefix, prompt, each decoded token).
struct RowMemory {
  std::vector<std::uint8_t> held;            // a temporal node each: `any` so far, or `last`'s answer
  std::vector<std::uint8_t> prompt_matches;  // a regular expression each
};

/// All conditions of a set of interventions, compiled for one model: quantiles are numbers, tokens are
/// ids, equal sub-conditions are evaluated once. A condition holds at no position 0 where it reads a
/// feature (attention sinks), and `any` counts from position 1.
class ConditionSet {
 public:
  ConditionSet();
  ~ConditionSet();
  ConditionSet(ConditionSet&&) noexcept;

  using TokenId = std::function<std::int64_t(const std::string&)>;
  using QuantileValue = std::function<double(const dsl::Quantile&)>;

  /// Returns the condition's index. `quantile` and `token_id` answer what only the model knows.
  std::size_t add(const dsl::Condition& condition, const TokenId& token_id, const QuantileValue& quantile);

  /// Features that the condition reads, without repetition.
  const std::vector<dsl::FeatureId>& reads(std::size_t condition) const { return reads_[condition]; }

  RowMemory begin_row(const std::string& prompt) const;

  /// The tokens of a pass where each condition holds. Answers are kept for the pass, so a node is
  /// evaluated once however many sentences use it.
  class Evaluation {
   public:
    using Activation = std::function<std::span<const float>(dsl::FeatureId)>;
    Evaluation(const ConditionSet& set, const model::PackedLayout& layout, std::vector<RowMemory*> rows,
               Activation activation);
    const Mask& holds(std::size_t condition);

   private:
    const Mask& node(std::size_t index);
    Mask evaluate(std::size_t index);

    const ConditionSet& set_;
    const model::PackedLayout& layout_;
    std::vector<RowMemory*> rows_;
    Activation activation_;
    std::vector<Mask> masks_;
    std::vector<Mask> conditions_;
  };

 private:
  struct Node;
  std::size_t compile(const dsl::Condition& condition, const TokenId& token_id, const QuantileValue& quantile);

  std::vector<Node> nodes_;
  std::vector<std::size_t> roots_;
  std::vector<std::vector<dsl::FeatureId>> reads_;
  std::vector<std::unique_ptr<re2::RE2>> regexes_;
  std::size_t temporal_nodes_ = 0;
};

/// Whether a condition asks about the tokens or the prompt, not their places alone.
bool reads_text(const dsl::Condition& condition);
/// Whether a condition asks about the whole prompt (`prompt matches`): prompts that differ in it share no prefix.
bool reads_prompt(const dsl::Condition& condition);

}  // namespace proviso::runtime

#pragma once

#include <utility>
#include <vector>

#include "editing/weight_delta.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/plan.hpp"

namespace proviso::runtime {

/// What the folded sentences of a state become at one site.
struct FoldedSite {
  dsl::Site site;
  std::vector<editing::WeightDelta> deltas;
  std::vector<std::size_t> sentences;  ///< those that ask for a change (an `amplify` by 1 asks for none)
};

/// The weight changes of all `folds` of `sentences`, for the weights as they are now. Sites are written by
/// different tensors, so the order of applying them does not matter.
std::vector<FoldedSite> fold_sentences(const std::vector<PlannedSentence>& sentences,
                                       const std::vector<Direction>& features, const model::Transformer& transformer);

}  // namespace proviso::runtime

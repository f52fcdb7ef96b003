#include "runtime/folds.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "editing/fold.hpp"

namespace proviso::runtime {

namespace {

/// The activation a becomes gain · a + target.
struct AffineTarget {
  double gain = 1, target = 0;
  bool operator==(const AffineTarget&) const = default;
};

AffineTarget affine(const dsl::Intervention& sentence) {
  switch (sentence.operation) {
    case dsl::Operation::suppress:
      return {1 - sentence.amount, 0};
    case dsl::Operation::amplify:
      return {sentence.amount, 0};
    case dsl::Operation::clamp:
      return {0, sentence.amount};
    case dsl::Operation::steer:
      return {1, sentence.amount};
    case dsl::Operation::cap:
      break;  // never folds
  }
  return {};
}

/// What several sentences ask of one feature: equal requests count once, unequal ones meet in their mean, the
/// least-squares solution (as in hooks).
AffineTarget joint(std::vector<AffineTarget> asked) {
  std::vector<AffineTarget> distinct;
  for (const auto& target : asked) {
    if (std::find(distinct.begin(), distinct.end(), target) == distinct.end()) distinct.push_back(target);
  }
  AffineTarget mean{0, 0};
  for (const auto& target : distinct) {
    mean.gain += target.gain / static_cast<double>(distinct.size());
    mean.target += target.target / static_cast<double>(distinct.size());
  }
  return mean;
}

}  // namespace

std::vector<FoldedSite> fold_sentences(const std::vector<PlannedSentence>& sentences,
                                       const std::vector<Direction>& features, const model::Transformer& transformer) {
  std::map<dsl::Site, std::map<dsl::FeatureId, std::vector<std::size_t>>> by_site;
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    for (const auto& site : sentences[i].folds) by_site[site][sentences[i].sentence.feature].push_back(i);
  }
  std::vector<FoldedSite> folded;
  for (const auto& [site, asked_by_feature] : by_site) {
    FoldedSite result{site, {}, {}};
    std::vector<at::Tensor> rows;
    std::vector<double> gains, targets, zeros, scales;
    for (const auto& [feature, by] : asked_by_feature) {
      std::vector<AffineTarget> asked;
      for (std::size_t i : by) {
        asked.push_back(affine(sentences[i].sentence));
        if (asked.back() != AffineTarget{}) result.sentences.push_back(i);
      }
      const AffineTarget target = joint(std::move(asked));
      const Direction& direction = features[feature];
      rows.push_back(direction.d);
      gains.push_back(target.gain);
      targets.push_back(target.target);
      zeros.push_back(direction.offset_at(site));
      scales.push_back(direction.c);
    }
    const editing::FoldRequest request{at::stack(rows), at::tensor(gains, at::kDouble),
                                       at::tensor(targets, at::kDouble), at::tensor(zeros, at::kDouble),
                                       at::tensor(scales, at::kDouble)};
    // The plan folds only at linear writers, and constants only where the family has a bias for them.
    result.deltas = std::get<std::vector<editing::WeightDelta>>(editing::fold(request, transformer, site));
    folded.push_back(std::move(result));
  }
  return folded;
}

}  // namespace proviso::runtime

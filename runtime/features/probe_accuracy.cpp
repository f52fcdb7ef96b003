#include "runtime/features/probe_accuracy.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "runtime/features/logistic.hpp"

namespace proviso::runtime {

namespace {

constexpr std::int64_t kMostFolds = 5;
constexpr std::int64_t kNeighbours = 5;

at::Tensor by_logistic(const at::Tensor& x, const at::Tensor& labels, const at::Tensor& tested, std::int64_t classes) {
  std::vector<at::Tensor> scores;
  for (std::int64_t c = 0; c < classes; ++c) {
    const auto model = logistic_regression(x, (labels == c).to(at::kDouble));
    scores.push_back(tested.matmul(model.weights) + model.intercept);
  }
  return at::stack(scores, 1).argmax(1);
}

at::Tensor by_neighbours(const at::Tensor& x, const at::Tensor& labels, const at::Tensor& tested,
                         std::int64_t classes) {
  const auto distances = at::cdist(tested, x);
  const auto nearest = std::get<1>(distances.topk(std::min(kNeighbours, x.size(0)), 1, /*largest=*/false));
  return at::one_hot(labels.index({nearest}), classes).sum(1).argmax(1);  // [tested]
}

}  // namespace

std::optional<ProbeAccuracy> probe_accuracy(const at::Tensor& x, const at::Tensor& labels, std::int64_t classes) {
  const auto least = at::bincount(labels, {}, classes).min().item<std::int64_t>();
  const auto folds = std::min(kMostFolds, least);
  if (folds < 2) return std::nullopt;
  std::vector<std::int64_t> fold_of(labels.size(0)), seen(classes);
  for (std::int64_t i = 0; i < labels.size(0); ++i) fold_of[i] = seen[labels[i].item<std::int64_t>()]++ % folds;
  const auto fold = at::tensor(fold_of, at::kLong);
  ProbeAccuracy right;
  for (std::int64_t f = 0; f < folds; ++f) {
    const auto train = fold != f, test = fold == f;
    const auto known = x.index({train}), known_labels = labels.index({train});
    const auto tested = x.index({test}), truth = labels.index({test});
    right.logistic += (by_logistic(known, known_labels, tested, classes) == truth).sum().item<double>();
    right.neighbours += (by_neighbours(known, known_labels, tested, classes) == truth).sum().item<double>();
  }
  const auto n = static_cast<double>(labels.size(0));
  return ProbeAccuracy{right.logistic / n, right.neighbours / n};
}

}  // namespace proviso::runtime

#include "dsl/metric_traits.hpp"

#include <limits>

namespace proviso::dsl {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr MetricTraits kShare{};
constexpr MetricTraits kAnyNumber{.low = -kInf, .high = kInf, .share = false};

struct Traits {
  MetricTraits operator()(const metric::Probability&) const { return kShare; }
  MetricTraits operator()(const metric::Rank&) const { return {.low = 1, .high = kInf, .share = false}; }
  MetricTraits operator()(const metric::LogitDiff&) const { return kAnyNumber; }
  MetricTraits operator()(const metric::Accuracy&) const { return kShare; }
  MetricTraits operator()(const metric::Rate&) const { return kShare; }
  MetricTraits operator()(const metric::Perplexity&) const { return {.low = 1, .high = kInf, .share = false}; }
  MetricTraits operator()(const metric::PerplexityRise&) const { return {.low = -1, .high = kInf}; }
  MetricTraits operator()(const metric::Kl&) const { return {.low = 0, .high = kInf, .share = false}; }
  MetricTraits operator()(const metric::Mean&) const { return kAnyNumber; }
  MetricTraits operator()(const metric::Max&) const {
    return {.low = -kInf, .high = kInf, .share = false, .sampled = false};
  }
  MetricTraits operator()(const metric::FiringRate&) const { return kShare; }
  MetricTraits operator()(const metric::Auroc&) const { return kShare; }
  MetricTraits operator()(const metric::Cosine&) const {
    return {.low = -1, .high = 1, .share = false, .sampled = false};
  }
  MetricTraits operator()(const metric::Effect& effect) const {
    MetricTraits result = traits(*effect.on);
    const double width = result.high - result.low;
    result.low = -width;
    result.high = width;
    // The difference of two areas, or of two rises, has no interval here.
    result.sampled = result.sampled && !std::holds_alternative<metric::Auroc>(effect.on->node) &&
                     !std::holds_alternative<metric::PerplexityRise>(effect.on->node);
    return result;
  }
  MetricTraits operator()(const metric::Efficacy&) const { return kShare; }
  MetricTraits operator()(const metric::Paraphrase&) const { return kShare; }
  MetricTraits operator()(const metric::Specificity&) const { return kShare; }
  // Below 0 where the reconstruction is worse than the mean, above 1 where it is better than the model.
  MetricTraits operator()(const metric::LossRecovered&) const { return {.low = -kInf, .high = kInf}; }
  MetricTraits operator()(const metric::SparseProbing&) const { return kShare; }
  MetricTraits operator()(const metric::Absorption&) const { return kShare; }
  MetricTraits operator()(const metric::Tpp&) const { return {.low = -2, .high = 2}; }
  // Below 0 where the ablation makes the probe worse, above 1 where it is better than one trained without the bias.
  MetricTraits operator()(const metric::Scr&) const { return {.low = -kInf, .high = kInf}; }
  // A circuit can carry more than the whole model does, or the opposite.
  MetricTraits operator()(const metric::Faithfulness&) const { return {.low = -kInf, .high = kInf}; }
  MetricTraits operator()(const metric::Completeness&) const { return {.low = -kInf, .high = kInf}; }
  MetricTraits operator()(const metric::Minimality&) const { return {.sampled = false}; }
  MetricTraits operator()(const metric::Stability&) const { return {.sampled = false}; }
  MetricTraits operator()(const metric::Overlap&) const { return {.sampled = false}; }
};

}  // namespace

MetricTraits traits(const Metric& metric) { return std::visit(Traits{}, metric.node); }

std::vector<PromptsId> prompt_sets(const Metric& metric) {
  return std::visit(
      [](const auto& node) -> std::vector<PromptsId> {
        if constexpr (requires { node.after; }) {
          return {node.after};
        } else if constexpr (requires { node.prompts; }) {
          return {node.prompts};
        } else if constexpr (requires { node.sets; }) {
          return node.sets;
        } else if constexpr (requires { node.p; }) {
          return {node.p, node.q};
        } else if constexpr (requires { node.controls; }) {
          return prompt_sets(*node.on);
        } else if constexpr (requires { node.on; }) {
          return {node.on};
        } else {
          return {};
        }
      },
      metric.node);
}

std::optional<FeatureId> measured_feature(const Metric& metric) {
  return std::visit(
      [](const auto& node) -> std::optional<FeatureId> {
        if constexpr (requires { node.feature; }) {
          return node.feature;
        } else if constexpr (requires { node.controls; }) {
          return measured_feature(*node.on);
        } else {
          return std::nullopt;
        }
      },
      metric.node);
}

std::optional<CircuitId> measured_circuit(const Metric& metric) {
  return std::visit(
      [](const auto& node) -> std::optional<CircuitId> {
        if constexpr (requires { node.circuit; }) {
          return node.circuit;
        } else {
          return std::nullopt;
        }
      },
      metric.node);
}

const std::string* measured_autoencoder(const Metric& metric) {
  return std::visit(
      [](const auto& node) -> const std::string* {
        if constexpr (requires { node.folder; }) {
          return &node.folder;
        } else {
          return nullptr;
        }
      },
      metric.node);
}

MetricTraits relative_traits(const metric::Effect& effect) {
  MetricTraits result = traits(*effect.on);
  result.low = result.low >= 0 ? -1 : -kInf;  // what cannot be negative can at most vanish
  result.high = kInf;
  result.share = true;
  return result;
}

}  // namespace proviso::dsl

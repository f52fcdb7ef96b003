#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"

namespace proviso::dsl {

/// What can be said of a metric's values before anything is measured.
struct MetricTraits {
  double low = 0;       ///< the least value it can take; −∞ where there is none
  double high = 1;      ///< the greatest
  bool share = true;    ///< read as a percentage
  bool sampled = true;  ///< has an interval
  bool open = true;     ///< no interval reaches an end of the range, as Wilson's never reaches 100 %
};

MetricTraits traits(const Metric& metric);

/// The sets of prompts that a metric is measured on; an effect's are those of its metric.
std::vector<PromptsId> prompt_sets(const Metric& metric);

/// The feature that a metric reads, or an effect's metric.
std::optional<FeatureId> measured_feature(const Metric& metric);

/// The circuit that a metric measures.
std::optional<CircuitId> measured_circuit(const Metric& metric);

/// The folder of the sparse autoencoder that a metric measures, or null.
const std::string* measured_autoencoder(const Metric& metric);

/// Of an effect taken `relative` to the value before.
MetricTraits relative_traits(const metric::Effect& effect);

}  // namespace proviso::dsl

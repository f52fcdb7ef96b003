#pragma once

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

/// Of an effect taken `relative` to the value before.
MetricTraits relative_traits(const metric::Effect& effect);

}  // namespace proviso::dsl

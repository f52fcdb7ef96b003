#pragma once

#include <string>

#include "audit/report.hpp"

namespace proviso::audit {

/// An expectation as SVG to stand in HTML: the value and its interval against the bound, the value without what the
/// check is `under`, the controls (mean and one standard deviation), and each combination of `across`. Marks differ in
/// shape, not in colour alone, and a label says the same in words. "" where there is no finite number to draw.
std::string plot(const ExpectationResult& result);

/// The value, its interval and the bound alone, in the height of a line; for the eye only.
std::string small_plot(const ExpectationResult& result);

}  // namespace proviso::audit

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"

namespace proviso::audit {

/// How many prompts a threshold needs: told before anything is measured.
struct SampleSize {
  std::string expectation;    ///< its text
  std::int64_t prompts = 0;   ///< that it is measured on: of a circuit its pairs, of `efficacy` the facts
  std::int64_t clusters = 0;  ///< in which they lie: the prompts of one template or document are one
  double confidence = 0.95;   ///< asked for, or 95 % where none is
  bool asked = false;         ///< whether it is
  bool share = false;         ///< a rate, whose interval is Wilson's: `halfway` and `half_width` are of these alone
  /// Fewest with which the whole interval can keep the bound, all prompts agreeing; of `auroc` on the smaller side, the
  /// sides apart; of clusters, where prompts come in such. 0 where no number does, and of other metrics.
  std::int64_t at_best = 0;
  /// With which it passes four times out of five where the share lies midway between the bound and the end of the
  /// range.
  std::int64_t halfway = 0;
  double half_width = 0;  ///< half the interval's width for a share at the bound, with the prompts there are
  std::string advice;     ///< in a sentence
};

/// About the fewest independent prompts with which a check passes with `kPower` probability, where `share` is the
/// truth: Wilson's whole interval keeps the bound. 0 where more than 100,000 would be needed, or no number does.
std::int64_t prompts_to_show(double share, dsl::Compare op, double bound, double confidence);
inline constexpr double kPower = 0.8;

/// Of an expectation that has samples; nothing of others (`cosine`, `max`). `edits` are those whose facts `efficacy` is
/// of.
std::optional<SampleSize> sample_size(const dsl::Expectation& expectation, const runtime::BoundRules& bound,
                                      const std::vector<dsl::EditId>& edits = {});

}  // namespace proviso::audit

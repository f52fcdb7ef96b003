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
  /// sides apart. 0 where no number does, and of other metrics.
  std::int64_t at_best = 0;
  std::int64_t halfway = 0;  ///< … where the share lies midway between the bound and the end of the range
  double half_width = 0;     ///< half the interval's width for a share at the bound, with the prompts there are
  std::string advice;        ///< in a sentence
};

/// Of an expectation that has samples; nothing of others (`cosine`, `max`). `edits` are those whose facts `efficacy` is
/// of.
std::optional<SampleSize> sample_size(const dsl::Expectation& expectation, const runtime::BoundRules& bound,
                                      const std::vector<dsl::EditId>& edits = {});

}  // namespace proviso::audit

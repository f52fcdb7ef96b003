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
  std::string expectation;   ///< its text
  std::int64_t prompts = 0;  ///< that it is measured on
  double confidence = 0.95;  ///< asked for, or 95 % where none is
  bool asked = false;        ///< whether it is
  bool share = false;        ///< a rate, whose interval is Wilson's: the numbers below are of these alone
  std::int64_t at_best = 0;  ///< fewest with which the whole interval can keep the bound, all prompts agreeing
  std::int64_t halfway = 0;  ///< … where the share lies midway between the bound and the end of the range
  double half_width = 0;     ///< half the interval's width for a share at the bound, with the prompts there are
  std::string advice;        ///< in a sentence
};

/// Of an expectation that samples prompts; nothing of others (`cosine`, a circuit's, an edit's facts).
std::optional<SampleSize> sample_size(const dsl::Expectation& expectation, const runtime::BoundRules& bound);

}  // namespace proviso::audit

#pragma once

#include <cstdint>
#include <vector>

#include "dsl/rule_set.hpp"

namespace proviso::audit {

/// Prompts cut in three, so that what is shown of a feature was measured on prompts that neither built nor chose it:
/// two fifths build, one fifth chooses, two fifths judge.
struct PromptParts {
  std::vector<dsl::Prompt> build, choose, judge;
};

/// Fewer prompts of a side cannot be cut into parts that say anything.
inline constexpr std::size_t kFewestPromptsToCut = 10;

/// Drawn by the seed; each text once, and prompts of one cluster in one part. A part is empty where there are too few
/// clusters.
PromptParts cut(const std::vector<dsl::Prompt>& prompts, std::uint64_t seed);

}  // namespace proviso::audit

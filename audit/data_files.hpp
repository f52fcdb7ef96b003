#pragma once

#include <string>
#include <vector>

#include "dsl/rule_set.hpp"

namespace proviso::audit {

/// The files beside the rule files whose contents an audit depends on: prompts, facts, stored directions, and the texts
/// and moments that edits name. Sorted, each once, as they are opened.
std::vector<std::string> data_files(const dsl::RuleSet& rules);

}  // namespace proviso::audit

#pragma once

#include <string_view>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "dsl/rule_set.hpp"

namespace proviso::dsl {

/// The prompts in a file's `bytes`, read as records (`read_records`). A field that holds a list of texts gives a prompt
/// each, which are one cluster. Continuations under CounterFact's `requested_rewrite` get their space. A file without
/// any gives an empty list (an audit then reports `vacuous`). Every diagnostic stands at the path in the rule file and
/// names the line, or the item of a JSON array, in the prompt file.
Outcome<std::vector<Prompt>> read_prompt_file(const PromptFile& file, std::string_view bytes);

}  // namespace proviso::dsl

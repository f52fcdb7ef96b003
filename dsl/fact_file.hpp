#pragma once

#include <string_view>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "dsl/rule_set.hpp"

namespace proviso::dsl {

/// The facts in a file's `bytes`, read as records (`read_records`), each in one of these forms:
///   CounterFact: `requested_rewrite` with `prompt` (holding "{}"), `subject`, `target_new.str` and `target_true.str`;
///   zsRE as MEND has it: `src`, a question that names `subject`, and `answers`, the first of which is the new target;
///   known facts as causal tracing has them: `prompt`, which names `subject`, and `attribute`, the new target;
///   ours: `subject`, `template` (holding "{}"), `to`, and `from` where the present continuation is known.
/// `answer` names another field for the new target ("alt" in zsRE); the record's own answer is then what holds now. The
/// data sets leave the space before a target to their reader, so one is put there; ours are taken as written.
/// Diagnostics are as those of `read_prompt_file`.
Outcome<std::vector<Fact>> read_fact_file(const PromptFile& file, std::string_view bytes);

}  // namespace proviso::dsl

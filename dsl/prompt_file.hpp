#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "dsl/rule_set.hpp"

namespace proviso::dsl {

enum class PromptFormat { text, json_lines, json, csv };

/// By the extension, in any case: .txt, .jsonl (.ndjson), .json, .csv.
std::optional<PromptFormat> prompt_format(std::string_view path);

/// Larger files are refused before they are parsed.
inline constexpr std::size_t kMaxPromptFileBytes = std::size_t{64} << 20;

/// The prompts in a file's `bytes`. Blank lines hold no prompt; a file without any gives an empty list
/// (an audit then reports `vacuous`). Every diagnostic stands at the path in the rule file and names the
/// line, or the item of a JSON array, in the prompt file.
///
/// `take N` keeps the first N. `take N seed S` keeps N drawn without replacement, in the file's order, the
/// same on every machine: with SplitMix64 seeded by S, step i = 0 … N−1 of a Fisher-Yates shuffle of the
/// prompts' indices swaps i with i + r, where r is the first output below the largest multiple of
/// (count − i) that fits in 64 bits, modulo (count − i).
Outcome<std::vector<Prompt>> read_prompt_file(const PromptFile& file, std::string_view bytes);

}  // namespace proviso::dsl

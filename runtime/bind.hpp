#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dsl/check.hpp"
#include "dsl/diagnostic.hpp"
#include "runtime/bound_rules.hpp"

namespace proviso::runtime {

/// Checks a rule set against a model's names and shapes, and turns its texts into tokens. Reads prompt
/// files and tensor headers; no weights. `card` must outlive the result. A model that `model { … }`
/// excludes is refused first. `cache_directory` holds the model's hash, needed only where a file asks for it. `seed`
/// is the run's: attacks on prompts are made here.
dsl::Outcome<BoundRules> bind(std::shared_ptr<const dsl::RuleSet> rules, const model::ModelCard& card,
                              std::shared_ptr<const model::Tokenizer> tokenizer, const std::string& cache_directory,
                              std::uint64_t seed = 0);

/// What is wrong on a model with the sound parts of rule files, beside what is wrong with the files themselves
/// (`parts->diagnostics`, which is not repeated).
std::vector<dsl::Diagnostic> bind_parts(std::shared_ptr<const dsl::CheckedParts> parts, const model::ModelCard& card,
                                        std::shared_ptr<const model::Tokenizer> tokenizer,
                                        const std::string& cache_directory, std::uint64_t seed = 0);

}  // namespace proviso::runtime

#pragma once

// How a report is put into words for people: the same numbers and the same phrases on the terminal, in Markdown and in
// HTML. What comes from a rule file or a model is not escaped here: each rendering does that in its own way.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "audit/report.hpp"
#include "audit/verdict.hpp"
#include "dsl/rule_set.hpp"

namespace proviso::audit {

std::string grouped(std::int64_t count);                           ///< "134,515,008"
std::string counted(std::int64_t count, const std::string& noun);  ///< "1 prompt", "24 prompts"
std::string joined(const std::vector<std::string>& parts, const std::string& separator = ", ");
std::string counts_text(const Counts& counts);  ///< "2 passed, 1 failed of 3"

/// What the canonical text of an expectation says: `accuracy(capitals)`, `>=`, 0.9, written as `90%`.
struct Written {
  std::string metric;
  std::string comparison;  ///< ">= 90%"
  double bound = 0;
  bool percent = false;
  std::optional<dsl::Compare> op{};  ///< null where the text compares nothing
};
Written read_expectation(const std::string& text);

/// Whether the values of single prompts are shares where the metric is: an area's are activations, a rise's
/// perplexities.
bool prompts_in_percent(const Written& written, const std::string& text);

std::string number_text(double value, bool percent = false);
/// Rounded, but never onto or across the bound: 89.996% is not shown as 90% beside `>= 90%`.
std::string number_text(double value, const Written& written);
std::string interval_text(const Interval& interval, const Written& written);      ///< "[-19%, -4%]"
std::string measured_text(const Estimate& estimate, const Written& written);      ///< "-12% [-19%, -4%]"
std::string asked_text(const ExpectationResult& result, const Written& written);  ///< ">= 90% at 95%"
/// "-12% [-19%, -4%] at 95% confidence, 64 prompts; 25% without it".
std::string measurement_text(const ExpectationResult& result, const Written& written);
std::string control_text(const Control& control, const Written& written);
/// "suffix_search(steps: 20): expected continuations from 0.5 to 4.1 nats over 8 prompts"
std::string searched_text(const SearchResult& search);
std::string moved_text(const ExpectationResult& result);  ///< "anger at resid_post[18] from 0.9 to 0.1; …"
/// "on 3 of 8 prompts the rules no longer fire, though the behaviour is there"; "" where none evades
std::string evaded_text(const ExpectationResult& result);
std::string attacked_text(const ExpectationResult& result);  ///< "typos(rate: 5%) changed 40 prompts; …"
/// "held in 50% of 2 combinations: seed 0 71.88% (pass); seed 1 62.5% (fail)".
std::string across_text(const AcrossResult& across, const Written& written);
std::string listed(const std::vector<std::pair<std::string, double>>& values);  ///< "kl 0.0021; …"

std::string quoted(const std::string& text);  ///< at most 200 columns
std::string evidence_text(const Evidence& evidence, bool percent);
std::string remarks(const dsl::Annotations& annotations);  ///< "" of what is stable
std::string waiver_text(const WaiverResult& waiver);       ///< "until 2027-03-31 by model-risk: …"
std::string change_text(const TensorChange& change);       ///< "x.weight [576, 1536], rank 1, norm 3.5, …"
std::string method_text(const EditResult& edit);           ///< "rome(layer: 5)"
/// "12 of 14 planted faults do not get past it (86% [60%, 96%]), 1 of these only in doubt; no false alarm in 2 runs
/// without a fault".
std::string planted_text(const PlantedFaults& planted);
std::string tally_share_text(const FaultTally& tally);    ///< "86% [60%, 96%]"; "" where nothing was planted
std::string fault_result_text(const FaultResult& fault);  ///< "by check/knows_capitals", or why it was not planted
std::vector<std::string> alarms_text(const PlantedFaults& planted);  ///< one a control that gave one
std::string run_text(const RunFacts& run);
std::string model_text(const ModelFacts& model);

}  // namespace proviso::audit

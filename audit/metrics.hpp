#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/evidence_source.hpp"
#include "audit/statistics.hpp"
#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"

namespace proviso::audit {

/// One prompt's part in a metric.
struct PromptValue {
  const runtime::BoundPrompt* prompt = nullptr;
  Sample sample;
  std::string output;  ///< the text generated, where there is one
};

/// A metric in one state, before statistics: which estimator its values go to, and the values.
struct Values {
  enum class Kind { share, mean, perplexity, perplexity_rise, auroc, maximum, number, recovered } kind = Kind::mean;
  std::vector<PromptValue> values;
  /// auroc's negative side; perplexity_rise's texts on the model as loaded; what `recovered` are shares of
  std::vector<PromptValue> others;
  bool empty_set = false;              ///< a set without prompts was asked about
  bool one_value = false;              ///< a feature read one value on 8 or more prompts
  bool with_itself = false;            ///< the model as loaded was compared with itself
  std::vector<std::int64_t> attacked;  ///< how many of the prompts each attack in force changed
  std::vector<runtime::AttackedKey> attacked_sets;
  /// Of a circuit under attack: pairs left out, whose prompts are unequally long now, or the same.
  std::optional<std::int64_t> pairs_left_out;
  std::string broken;  ///< why there is no value at all: an `error`
};

/// What a metric is measured on: the model state, the edits in it (for `efficacy` and its kin), and what becomes of its
/// prompts.
struct Subject {
  runtime::StateId state = 0;
  std::vector<dsl::EditId> edits;
  std::optional<dsl::PromptsId> paraphrases = std::nullopt;  ///< in place of the metric's one set
  std::optional<dsl::CheckId> attacks = std::nullopt;        ///< the check whose attacks are in force
  std::uint64_t seed = 0;                                    ///< added to the run's: of attacks and of sampled texts
  /// What the edges outside a circuit carry.
  dsl::Ablation ablation = dsl::Ablation::resample;
};

/// The prompts that `metric` is measured on, set by set: in place of those written, their paraphrases or what attacks
/// make of them.
std::vector<const runtime::BoundPrompts*> measured_prompts(const dsl::Metric& metric, const Subject& subject,
                                                           const runtime::BoundRules& bound);

/// Asks `source` for everything `metric` (any but `effect`) needs, and reads it.
Values measure(const dsl::Metric& metric, const Subject& subject, const runtime::BoundRules& bound,
               EvidenceSource& source);

/// The metric's number with its interval at `confidence`, by the estimator of its kind.
Estimate estimate(const Values& values, double confidence, std::uint64_t seed);

/// after − before on the same prompts, or that over the value before where `relative`.
Estimate estimate_difference(const Values& before, const Values& after, bool relative, double confidence,
                             std::uint64_t seed);

}  // namespace proviso::audit

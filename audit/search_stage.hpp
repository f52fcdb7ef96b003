#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "audit/feature_search.hpp"
#include "audit/prompt_parts.hpp"
#include "runtime/bound_rules.hpp"

namespace proviso::audit {

/// A text of the language on the model, whose features are candidates in order.
struct SearchStage {
  std::shared_ptr<const dsl::RuleSet> rules;
  runtime::BoundRules bound;

  dsl::PromptsId set(const std::string& name) const;
  const runtime::BoundPrompts& prompts(const std::string& name) const { return bound.prompts[set(name)]; }
};

/// The stages of one search. Each is a rule file, read as any other is: what is tried, judged and printed is what the
/// language makes of its declaration. Its sets are `build_positive`, `choose_positive`, `positive` (those that judge),
/// and the same of `negative`.
class SearchStages {
 public:
  /// Throws `InputError`: too few prompts, or one that is on both sides.
  SearchStages(const FeatureSearch& search, const FeatureSearchModel& model, dsl::SourceSet& sources);

  const PromptParts& parts(const std::string& side) const { return parts_.at(side); }

  /// These features, built from the building prompts, and these checks of them.
  dsl::Outcome<SearchStage> open(const std::vector<CandidateFeature>& features,
                                 const std::vector<std::string>& checks) const;

 private:
  PromptParts cut_side(const std::vector<dsl::Prompt>& prompts, const std::string& file, std::uint64_t side) const;
  std::string text(const std::vector<CandidateFeature>& features, const std::vector<std::string>& checks) const;

  const FeatureSearch& search_;
  const FeatureSearchModel& model_;
  dsl::SourceSet& sources_;
  std::map<std::string, PromptParts> parts_;                                   // by side
  std::vector<std::pair<std::string, const std::vector<dsl::Prompt>*>> sets_;  // by name
};

}  // namespace proviso::audit

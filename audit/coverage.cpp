#include "audit/coverage.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "dsl/condition_logic.hpp"

namespace proviso::audit {

namespace {

/// Counts branches, and says which are not covered.
class BranchCount {
 public:
  BranchCount(Coverage& coverage, std::string rule) : coverage_(coverage), rule_(std::move(rule)) {}

  /// `told`: that it is uncovered follows from what is said already.
  void add(bool covered, const std::string& what, bool told = false) {
    ++coverage_.branches;
    coverage_.branches_covered += covered;
    if (!covered && !told) coverage_.uncovered.push_back("rule " + rule_ + ": " + what);
  }

 private:
  Coverage& coverage_;
  std::string rule_;
};

const RuleActivity* activity_of(const Report& report, const std::string& rule, const std::string& sentence) {
  const auto found =
      std::find_if(report.rule_activity.begin(), report.rule_activity.end(),
                   [&](const RuleActivity& each) { return each.rule == rule && each.sentence == sentence; });
  return found == report.rule_activity.end() ? nullptr : &*found;
}

/// Examples are prompts: what holds on generated tokens only is not theirs to show.
bool can_be_tried(const dsl::Intervention& sentence) {
  return sentence.condition != nullptr && dsl::can_hold_on_prompt(*sentence.condition);
}

}  // namespace

Coverage coverage(const dsl::RuleSet& rules, const Report& report, const Selection& selection) {
  Coverage coverage;
  for (const auto& rule : rules.rules) {
    const bool conditional = std::any_of(rule.interventions.begin(), rule.interventions.end(),
                                         [](const dsl::Intervention& sentence) { return can_be_tried(sentence); });
    if (rule.imported || !conditional || !selection.takes(rule)) continue;
    ++coverage.rules;
    coverage.rules_covered += !rule.fires_on.empty() && !rule.silent_on.empty();
    const bool untried = rule.fires_on.empty() && rule.silent_on.empty();
    if (rule.fires_on.empty()) coverage.uncovered.push_back("rule " + rule.name + " has no `fires on` example");
    if (rule.silent_on.empty()) coverage.uncovered.push_back("rule " + rule.name + " has no `silent on` example");

    BranchCount branches(coverage, rule.name);
    bool any_acts = false;
    for (const auto& sentence : rule.interventions) {
      if (!can_be_tried(sentence)) continue;
      const RuleActivity* activity = activity_of(report, rule.name, sentence.text);
      const bool acts = activity != nullptr && activity->active > 0;
      any_acts = any_acts || acts;
      branches.add(acts, "`" + sentence.text + "` acts in no example", untried);
      if (activity == nullptr) continue;
      for (std::size_t i = 0; i < activity->branches.size(); ++i) {
        const auto& [branch, held] = activity->branches[i];
        if (!dsl::can_hold_on_prompt(*std::get<dsl::Or>(sentence.condition->node).of[i])) continue;
        branches.add(held > 0, "`" + branch + "` holds in no example", !acts);
      }
    }
    std::map<std::string, std::int64_t> held;
    for (const ExampleResult& example : report.examples) {
      if (example.rule != rule.name) continue;
      for (const ConditionResult& condition : example.conditions) held[condition.condition] += condition.held;
    }
    for (const auto& [condition, prompts] : held) {
      const std::string quoted = "`" + condition + "`";
      const bool told = !any_acts || std::any_of(coverage.uncovered.begin(), coverage.uncovered.end(),
                                                 [&](const auto& line) { return line.find(quoted) != line.npos; });
      branches.add(prompts > 0, quoted + " holds in no example", told);
    }
  }
  return coverage;
}

}  // namespace proviso::audit

#include "audit/under_attack.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "audit/expectations.hpp"
#include "dsl/condition_logic.hpp"

namespace proviso::audit {
namespace {

using runtime::BoundPrompt;

/// A prompt as written, and as the attacks left it.
struct Pair {
  const BoundPrompt *written, *attacked;
};

std::vector<Pair> pairs(const Values& measured, const runtime::BoundRules& bound) {
  std::vector<Pair> all;
  for (const auto& key : measured.attacked_sets) {
    const auto& attacked = bound.attacked.at(key).prompts;
    for (std::size_t i = 0; i < attacked.size(); ++i) {
      all.push_back({key.facts ? &bound.facts[key.id][i].prompt : &bound.prompts[key.id][i], &attacked[i]});
    }
  }
  return all;
}

/// The features that the sentences' conditions read, and those that unconditional ones act on.
std::vector<dsl::FeatureId> features_of(const std::vector<runtime::PlannedSentence>& sentences) {
  std::vector<dsl::FeatureId> all;
  for (const auto& each : sentences) {
    const dsl::Intervention& sentence = each.sentence;
    const auto read = sentence.condition ? dsl::features_read(*sentence.condition) : std::vector{sentence.feature};
    for (const dsl::FeatureId feature : read) {
      if (std::find(all.begin(), all.end(), feature) == all.end()) all.push_back(feature);
    }
  }
  return all;
}

/// The mean over the positions that count, or NaN.
double mean(const Activations& activations) {
  double sum = 0, counted = 0;
  for (std::size_t i = 0; i < activations.values.size(); ++i) {
    if (!activations.counts[i]) continue;
    sum += activations.values[i];
    ++counted;
  }
  return sum / counted;
}

/// Whether a condition of the sentences holds somewhere.
bool fires(const std::vector<runtime::PlannedSentence>& sentences, const std::vector<std::int64_t>& fired) {
  for (std::size_t i = 0; i < std::min(sentences.size(), fired.size()); ++i) {
    if (sentences[i].sentence.condition && fired[i] > 0) return true;
  }
  return false;
}

/// Whether the metric says yes or no of a prompt.
bool says_yes_or_no(const dsl::Metric& metric, const Values& measured) {
  return measured.kind == Values::Kind::share && !std::holds_alternative<dsl::metric::FiringRate>(metric.node);
}

}  // namespace

std::vector<SearchResult> searched(const dsl::CheckDecl& check, const Values& measured,
                                   const runtime::BoundRules& bound) {
  std::vector<SearchResult> results;
  for (std::size_t place = 0; place < check.under_attacks.size(); ++place) {
    const auto& attack = check.under_attacks[place];
    SearchResult result;
    result.attack = attack.text;
    result.toward = attack.toward.value_or("");
    for (const auto& key : measured.attacked_sets) {
      const auto& attacked = bound.attacked.at(key);
      const auto found = attacked.found.find(place);
      if (found == attacked.found.end()) continue;
      for (std::size_t i = 0; i < found->second.size(); ++i) {
        const auto& [before, after] = found->second[i];
        result.nll_before += before;
        result.nll_after += after;
        result.evidence.push_back({attacked.prompts[i].text, before, after, ""});
      }
    }
    result.prompts = std::ssize(result.evidence);
    if (result.prompts == 0) continue;
    result.nll_before /= static_cast<double>(result.prompts);
    result.nll_after /= static_cast<double>(result.prompts);
    std::stable_sort(result.evidence.begin(), result.evidence.end(), [](const Evidence& a, const Evidence& b) {
      return std::abs(a.after - *a.before) > std::abs(b.after - *b.before);
    });
    result.evidence.resize(std::min(result.evidence.size(), kEvidenceShown));
    results.push_back(std::move(result));
  }
  return results;
}

RulesUnderAttack rules_under_attack(const dsl::Metric& metric, const Values& measured, runtime::StateId state,
                                    runtime::StateId attacked, const runtime::BoundRules& bound,
                                    const runtime::PlanBuilder& builder, EvidenceSource& source) {
  const auto sentences = builder.plan().states[state].sentences;
  const auto all = pairs(measured, bound);
  RulesUnderAttack result;
  for (const dsl::FeatureId feature : features_of(sentences)) {
    FeatureMove move{bound.feature_name(feature), dsl::to_string(bound.feature_sites[feature]), 0, 0};
    double counted = 0;
    for (const auto& [written, under_attack] : all) {
      const double before = mean(source.activations(state, *written, feature));
      const double after = mean(source.activations(attacked, *under_attack, feature));
      if (std::isnan(before) || std::isnan(after)) continue;  // no position of it counts
      move.before += before;
      move.after += after;
      ++counted;
    }
    if (counted == 0) continue;
    move.before /= counted;
    move.after /= counted;
    result.moved.push_back(std::move(move));
  }
  const bool conditional = std::any_of(sentences.begin(), sentences.end(),
                                       [](const auto& each) { return each.sentence.condition != nullptr; });
  if (!conditional || !says_yes_or_no(metric, measured)) return result;
  std::set<const BoundPrompt*> behaves;
  for (const auto& value : measured.values) {
    if (value.sample.value > 0) behaves.insert(value.prompt);
  }
  Evaded evaded;
  for (const auto& [written, under_attack] : all) {
    const bool fired = fires(sentences, source.firing(state, *written));
    const bool still_fires = fires(sentences, source.firing(attacked, *under_attack));
    evaded.of += fired;
    evaded.prompts += fired && !still_fires && behaves.contains(under_attack);
  }
  result.evaded = evaded;
  return result;
}

}  // namespace proviso::audit

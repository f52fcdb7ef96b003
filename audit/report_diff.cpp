#include "audit/report_diff.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "audit/report_words.hpp"
#include "audit/statistics.hpp"

namespace proviso::audit {
namespace {

using Key = std::pair<Judgement::Kind, std::string>;
Key key_of(const Judgement& judgement) { return {judgement.kind, judgement.name}; }

// ---- noise -------------------------------------------------------------------------------------------

struct Difference {
  Basis basis = Basis::none;
  std::optional<Interval> interval;
  std::string why_not;
  bool beyond_noise = false;
};

/// A report's numbers as the statistics take them.
std::vector<Sample> samples_of(const PromptNumbers& numbers) {
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < numbers.values.size(); ++i) {
    const double weight = i < numbers.weights.size() ? numbers.weights[i] : 1;
    const auto cluster = i < numbers.clusters.size() ? numbers.clusters[i] : static_cast<std::int64_t>(i);
    samples.push_back({numbers.values[i], cluster, weight});
  }
  return samples;
}

/// Prompt by prompt, where both are of the same prompts.
std::optional<Difference> paired_difference(const ExpectationResult& before, const ExpectationResult& after) {
  if (!before.sample || !after.sample) return std::nullopt;
  const PromptNumbers &old = *before.sample, &now = *after.sample;
  if (old.prompts.empty() || old.prompts != now.prompts || old.kind != now.kind) return std::nullopt;
  const auto earlier = samples_of(old), later = samples_of(now);
  const double confidence = after.estimate.confidence;
  constexpr std::uint64_t kSeed = 0;
  const Estimate estimate = now.kind == "share" ? mcnemar(earlier, later, confidence)
                            : now.kind == "nll" ? exp_ratio_difference(earlier, later, confidence, kSeed)
                                                : paired_mean_difference(earlier, later, confidence, kSeed);
  if (!estimate.interval) return std::nullopt;
  const bool holds_zero = estimate.interval->low <= 0 && estimate.interval->high >= 0;
  return Difference{Basis::paired, estimate.interval, "", !holds_zero};
}

Difference difference_of(const ExpectationResult& before, const ExpectationResult& after) {
  const Estimate &old = before.estimate, &now = after.estimate;
  if (auto paired = paired_difference(before, after)) return *std::move(paired);
  for (const Estimate* estimate : {&old, &now}) {
    if (estimate->interval) continue;
    const std::string& why = estimate->why_no_interval;
    return {Basis::none, std::nullopt, "no interval" + (why.empty() ? "" : ": " + why)};
  }
  if (old.confidence != now.confidence) {
    return {Basis::none, std::nullopt,
            "the intervals are at " + number_text(old.confidence, true) + " and " + number_text(now.confidence, true)};
  }
  const Interval interval = interval_of_difference(old.value, *old.interval, now.value, *now.interval);
  return {Basis::intervals, interval, "", interval.low > 0 || interval.high < 0};
}

/// Whether a number that grew, or shrank, went away from where the expectation wants it.
bool away_from_bound(const Written& written, double before, double after) {
  if (!written.op) return false;
  switch (*written.op) {
    case dsl::Compare::less:
    case dsl::Compare::less_equal:
      return after > before;
    case dsl::Compare::greater:
    case dsl::Compare::greater_equal:
      return after < before;
    case dsl::Compare::equal:
      return std::abs(after - written.bound) > std::abs(before - written.bound);
    case dsl::Compare::not_equal:
      return std::abs(after - written.bound) < std::abs(before - written.bound);
  }
  return false;
}

// ---- expectations ----------------------------------------------------------------------------------

bool same_number(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/// Pairs by text, and what is left by metric: its bound was rewritten. Each old one is taken once.
std::vector<const ExpectationResult*> counterparts(const std::vector<ExpectationResult>& before,
                                                   const std::vector<ExpectationResult>& after) {
  std::vector<const ExpectationResult*> found(after.size(), nullptr);
  std::set<const ExpectationResult*> taken;
  const auto pair_up = [&](auto same) {
    for (std::size_t i = 0; i < after.size(); ++i) {
      for (const ExpectationResult& old : before) {
        if (found[i] || taken.count(&old) > 0 || !same(old, after[i])) continue;
        found[i] = &old;
        taken.insert(&old);
      }
    }
  };
  pair_up([](const auto& a, const auto& b) { return a.text == b.text; });
  pair_up(
      [](const auto& a, const auto& b) { return read_expectation(a.text).metric == read_expectation(b.text).metric; });
  return found;
}

ExpectationChange change_of(const ExpectationResult& before, const ExpectationResult& after) {
  ExpectationChange change;
  change.text = after.text;
  if (before.text != after.text) change.text_before = before.text;
  change.before = before.status;
  change.after = after.status;
  change.old_estimate = before.estimate;
  change.new_estimate = after.estimate;
  if (!same_number(before.estimate.value, after.estimate.value)) {
    Difference difference = difference_of(before, after);
    change.basis = difference.basis;
    change.difference = difference.interval;
    change.why_not = std::move(difference.why_not);
    change.beyond_noise = difference.beyond_noise;
    change.trend = Trend::moved;
    if (change.beyond_noise) {
      const Written written = read_expectation(after.text);
      const double old = before.estimate.value, now = after.estimate.value;
      if (away_from_bound(written, old, now)) change.trend = Trend::worse;
      if (away_from_bound(written, now, old)) change.trend = Trend::better;
    }
  } else if (before.status != after.status || !change.text_before.empty()) {
    change.trend = Trend::moved;
  }
  return change;
}

// ---- the whole ---------------------------------------------------------------------------------------

void compare_inputs(ReportDiff& diff, const Report& before, const Report& after) {
  const auto add = [&](const std::string& what, const std::string& old, const std::string& now) {
    if (old != now) diff.inputs.push_back({what, old, now});
  };
  add("model", before.model.name, after.model.name);
  add("weights", before.model.sha256, after.model.sha256);
  add("dtype", before.model.dtype, after.model.dtype);
  add("program", before.version, after.version);
  add("seed", std::to_string(before.run.seed), std::to_string(after.run.seed));
  add("device", before.run.device, after.run.device);
  add("only", before.run.only, after.run.only);
  const auto files = [&](const char* kind, const auto& old, const auto& now) {
    std::map<std::string, std::pair<std::string, std::string>> hashes;
    for (const auto& [file, sha256] : old) hashes[file].first = sha256;
    for (const auto& [file, sha256] : now) hashes[file].second = sha256;
    for (const auto& [file, sha256] : hashes) add(std::string(kind) + " " + file, sha256.first, sha256.second);
  };
  files("rules", before.rules, after.rules);
  files("data", before.data, after.data);
}

/// What `worsened` finds, by check and expectation ("" is the whole).
std::set<std::pair<Key, std::string>> worsened_keys(const Report& before, const Report& after) {
  std::set<std::pair<Key, std::string>> keys;
  for (const Worsening& worsening : worsened(before, after))
    keys.emplace(key_of(worsening.judgement), worsening.expectation);
  return keys;
}

}  // namespace

std::int64_t ReportDiff::count(Trend trend) const {
  return std::count_if(changes.begin(), changes.end(), [trend](const JudgementChange& change) {
    return change.trend == trend && !change.experimental;
  });
}

ReportDiff diff(const Report& before, const std::string& before_path, const Report& after,
                const std::string& after_path) {
  ReportDiff diff;
  diff.before = {before_path, before.model.name, before.run.date, before.verdict()};
  diff.after = {after_path, after.model.name, after.run.date, after.verdict()};
  compare_inputs(diff, before, after);

  const auto worse = worsened_keys(before, after), better = worsened_keys(after, before);
  std::map<Key, Judgement> earlier;
  for (const Judgement& judgement : judgements(before)) earlier.emplace(key_of(judgement), judgement);

  for (const Judgement& now : judgements(after)) {
    const Key key = key_of(now);
    JudgementChange change{now.kind, now.name, now.where, now.experimental, std::nullopt, now.status, Trend::same, {}};
    const auto old = earlier.find(key);
    if (old == earlier.end()) {
      change.trend = worse.count({key, ""}) > 0 ? Trend::worse : Trend::moved;
      diff.changes.push_back(std::move(change));
      continue;
    }
    change.before = old->second.status;
    if (change.before != change.after) change.trend = Trend::moved;
    if (better.count({key, ""}) > 0) change.trend = Trend::better;
    if (now.expectations) {
      const auto found = counterparts(*old->second.expectations, *now.expectations);
      for (std::size_t i = 0; i < found.size(); ++i) {
        if (!found[i]) continue;
        ExpectationChange one = change_of(*found[i], (*now.expectations)[i]);
        if (worse.count({key, one.text}) > 0) one.trend = Trend::worse;
        if (one.trend == Trend::same) continue;
        change.trend = std::max(change.trend, one.trend);
        change.expectations.push_back(std::move(one));
      }
    }
    if (worse.count({key, ""}) > 0) change.trend = Trend::worse;
    earlier.erase(old);
    if (change.trend != Trend::same) diff.changes.push_back(std::move(change));
  }
  for (const Judgement& gone : judgements(before)) {
    if (earlier.count(key_of(gone)) == 0) continue;
    diff.changes.push_back(
        {gone.kind, gone.name, gone.where, gone.experimental, gone.status, std::nullopt, Trend::moved, {}});
  }
  return diff;
}

}  // namespace proviso::audit

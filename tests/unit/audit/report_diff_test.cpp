// What changed between two reports, and what got worse.

#include "audit/report_diff.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>

#include "tests/support/reports.hpp"

namespace proviso::audit {
namespace {

using Catch::Contains;
using tests::report_with_everything;

/// A report of one check with one expectation.
Report measured(const std::string& text, Status status, double value, std::optional<Interval> interval) {
  Report report;
  CheckResult check;
  check.name = "c";
  check.where = "r.proviso:3";
  ExpectationResult expectation;
  expectation.text = text;
  expectation.status = status;
  expectation.estimate = {value, 50, interval, 0.95, interval ? "" : "a metric without sampling"};
  check.expectations = {expectation};
  conclude(check);
  report.checks = {check};
  report.run.date = "2026-11-23";
  return report;
}

Report accuracy(Status status, double value, double low, double high) {
  return measured("accuracy(capitals) >= 80%", status, value, Interval{low, high});
}

ReportDiff between(const Report& before, const Report& after) { return diff(before, "old.yaml", after, "new.yaml"); }

Trend trend_between(const Report& before, const Report& after) {
  const ReportDiff found = between(before, after);
  CHECK(found.count(Trend::worse) == (found.changes.empty() ? 0 : found.changes[0].trend == Trend::worse));
  return found.changes.empty() ? Trend::same : found.changes[0].trend;
}

}  // namespace

TEST_CASE("Equal reports do not differ") {
  const ReportDiff found = between(report_with_everything(), report_with_everything());
  CHECK(found.changes.empty());
  CHECK(found.inputs.empty());
}

TEST_CASE("A number is worse where it moved away from its bound by more than noise") {
  const Report before = accuracy(Status::pass, 0.98, 0.95, 0.99);
  CHECK(trend_between(before, accuracy(Status::pass, 0.86, 0.82, 0.89)) == Trend::worse);
  CHECK(trend_between(before, accuracy(Status::pass, 0.97, 0.93, 0.99)) == Trend::moved);
  CHECK(trend_between(accuracy(Status::pass, 0.86, 0.82, 0.89), before) == Trend::better);
  const auto perplexity = [](double value) {
    return measured("perplexity(held) <= 40", Status::pass, value, Interval{value - 1, value + 1});
  };
  CHECK(trend_between(perplexity(20), perplexity(30)) == Trend::worse);
  CHECK(trend_between(perplexity(30), perplexity(20)) == Trend::better);
  CHECK(trend_between(perplexity(20), perplexity(20.5)) == Trend::moved);
}

TEST_CASE("Where noise cannot be told, a number alone is not worse, and it says why") {
  const auto cosine = [](double value) { return measured("cosine(f, g) <= 0.5", Status::pass, value, std::nullopt); };
  const ReportDiff found = between(cosine(0.1), cosine(0.4));
  REQUIRE(found.changes.size() == 1);
  CHECK(found.changes[0].trend == Trend::moved);
  CHECK(found.changes[0].expectations[0].basis == Basis::none);
  CHECK_THAT(to_text(found, 100, false), Contains("noise cannot be told: no interval: a metric without sampling"));
}

TEST_CASE("A status is worse exactly where the gate against a baseline says so") {
  CHECK(trend_between(accuracy(Status::pass, 0.81, 0.7, 0.9), accuracy(Status::fail, 0.79, 0.7, 0.9)) == Trend::worse);
  CHECK(trend_between(accuracy(Status::fail, 0.79, 0.7, 0.9), accuracy(Status::pass, 0.81, 0.7, 0.9)) == Trend::better);
  // What is new counts as having passed; what is gone is told.
  const Report nothing;
  CHECK(trend_between(nothing, accuracy(Status::fail, 0.79, 0.7, 0.9)) == Trend::worse);
  CHECK(trend_between(nothing, accuracy(Status::pass, 0.9, 0.8, 0.95)) == Trend::moved);
  CHECK(trend_between(accuracy(Status::fail, 0.79, 0.7, 0.9), nothing) == Trend::moved);
  CHECK_THAT(to_text(between(accuracy(Status::fail, 0.79, 0.7, 0.9), nothing), 100, false), Contains("fail -> absent"));

  Report experimental = accuracy(Status::fail, 0.5, 0.4, 0.6);
  experimental.checks[0].annotations.status = dsl::Annotations::Status::experimental;
  const ReportDiff found = between(accuracy(Status::pass, 0.98, 0.95, 0.99), experimental);
  CHECK(found.changes.size() == 1);
  CHECK(found.count(Trend::worse) == 0);
}

TEST_CASE("A bound that was rewritten is told, and the metric still compared") {
  const Report before = accuracy(Status::fail, 0.7, 0.65, 0.75);
  Report after = accuracy(Status::pass, 0.7, 0.65, 0.75);
  after.checks[0].expectations[0].text = "accuracy(capitals) >= 60%";
  const ReportDiff found = between(before, after);
  REQUIRE(found.changes.size() == 1);
  CHECK_THAT(to_text(found, 100, false), Contains("asked     >= 80% -> >= 60%"));
}

TEST_CASE("Where both reports are of the same prompts, these are compared") {
  const auto logits = [](std::vector<double> values, Interval interval, const std::string& prompts = "a") {
    double sum = 0;
    for (const double value : values) sum += value;
    Report report = measured("logit_diff(\" a\", \" b\", after: p) >= 0", Status::pass,
                             sum / static_cast<double>(values.size()), interval);
    ExpectationResult& expectation = report.checks[0].expectations[0];
    expectation.estimate.n = static_cast<std::int64_t>(values.size());
    expectation.sample = PromptNumbers{"mean", prompts, std::move(values), {}, {}, {}};
    return report;
  };
  // Far apart from prompt to prompt, so that the intervals say nothing; each is lower by about 1.
  const std::vector<double> lower = {0, 4.1, 7.9, 12.05, 15.95, 19.8, 24.15, 27.85};
  const Report before = logits({1, 5, 9, 13, 17, 21, 25, 29}, {-2, 32}), after = logits(lower, {-3, 31});
  const ReportDiff found = between(before, after);
  REQUIRE(found.changes.size() == 1);
  CHECK(found.changes[0].expectations[0].basis == Basis::paired);
  CHECK(found.changes[0].trend == Trend::worse);
  for (const std::string other : {"b", ""}) {  // other prompts, or none told
    const ReportDiff apart = between(before, logits(lower, {-3, 31}, other));
    CHECK(apart.changes[0].expectations[0].basis == Basis::intervals);
    CHECK(apart.changes[0].trend == Trend::moved);
  }
  Report in_clusters = after, clustered_before = before;
  for (Report* report : {&in_clusters, &clustered_before})
    report->checks[0].expectations[0].sample->clusters = {0, 0, 0, 0, 1, 1, 1, 1};
  CHECK(between(clustered_before, in_clusters).changes[0].expectations[0].basis == Basis::intervals);  // too few
}

TEST_CASE("Shares of the same prompts are compared by what changed, texts by their losses") {
  const auto share = [](double value, const std::vector<double>& values) {
    Report report = accuracy(Status::pass, value, value - 0.1, value + 0.1);
    report.checks[0].expectations[0].sample = PromptNumbers{"share", "a", values, {}, {}, {}};
    return report;
  };
  std::vector<double> right(100, 1), wrong(100, 1);
  std::fill_n(wrong.begin(), 9, 0);
  const ReportDiff found = between(share(1, right), share(0.91, wrong));
  CHECK(found.changes[0].expectations[0].basis == Basis::paired);
  CHECK(found.changes[0].trend == Trend::worse);

  const auto perplexity = [](double more) {
    PromptNumbers sample{"nll", "a", {}, {}, {}, {}};
    for (int i = 0; i < 20; ++i) {
      sample.weights.push_back(10 + i);
      sample.values.push_back((2.5 + 0.2 * (i % 7) + more * (1 + 0.1 * (i % 3))) * (10 + i));
    }
    Report report = measured("perplexity(held) <= 40", Status::pass, std::exp(3.1 + more), Interval{10, 39});
    report.checks[0].expectations[0].sample = std::move(sample);
    return report;
  };
  CHECK(trend_between(perplexity(0), perplexity(0.03)) == Trend::worse);
  CHECK(trend_between(perplexity(0.03), perplexity(0)) == Trend::better);
}

TEST_CASE("What was run otherwise is told, and programs can read it all") {
  Report before = report_with_everything(), after = before;
  after.model.sha256 = std::string(64, '7');
  after.rules[0].second = std::string(64, '8');
  after.data.clear();
  after.checks[3].expectations[0].status = Status::fail;
  conclude(after.checks[3]);
  const ReportDiff found = between(before, after);
  const std::string text = to_text(found, 100, false);
  CHECK_THAT(text, Contains("rules capitals.proviso") && Contains("data data/angry.txt") && Contains("-> absent") &&
                       Contains("1 worse, 0 better, 0 other") && Contains("Got worse"));
  const Tree tree = tree_of(found);
  CHECK(tree["worse"] == 1);
  CHECK(tree["changes"][0]["name"] == "stays_fluent");
  CHECK(tree["changes"][0]["before"] == "pass");
  CHECK(tree["changes"][0]["expectations"][0]["status_after"] == "fail");
  CHECK(tree["inputs"].size() == 3);
}

}  // namespace proviso::audit

#include "audit/verdict.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>

namespace proviso::audit {
namespace {

constexpr double kControlLevel = 0.05;

bool holds(dsl::Compare op, double value, double bound) {
  switch (op) {
    case dsl::Compare::less:
      return value < bound;
    case dsl::Compare::less_equal:
      return value <= bound;
    case dsl::Compare::greater:
      return value > bound;
    case dsl::Compare::greater_equal:
      return value >= bound;
    case dsl::Compare::equal:
      return value == bound;
    case dsl::Compare::not_equal:
      return value != bound;
  }
  return false;
}

/// `all`: the claim holds of every point of the interval; `none`: of no point.
struct Coverage {
  bool all, none;
};

Coverage coverage(const Claim& claim, Interval interval) {
  const bool low = holds(claim.op, interval.low, claim.bound), high = holds(claim.op, interval.high, claim.bound);
  // The ends decide for a half-line; `==` and `!=` turn on the bound's place inside the interval.
  const bool inside = interval.low <= claim.bound && claim.bound <= interval.high;
  if (claim.op == dsl::Compare::equal) return {low && high, !inside};
  if (claim.op == dsl::Compare::not_equal) return {!inside, !low && !high};
  return {low && high, !low && !high};
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g%%", share * 100);
  return text;
}

Decision compared(const Claim& claim, const Estimate& estimate) {
  if (!estimate.decidable) return {Status::inconclusive, estimate.why_no_interval};
  if (std::isnan(estimate.value)) {
    const bool known = !estimate.why_no_interval.empty();
    return {Status::error, "the value is not a number" + (known ? ": " + estimate.why_no_interval : "")};
  }
  if (!claim.confidence) return {holds(claim.op, estimate.value, claim.bound) ? Status::pass : Status::fail, ""};
  if (!estimate.interval) {
    const std::string why = estimate.why_no_interval.empty() ? "not measured" : estimate.why_no_interval;
    return {Status::inconclusive, "no interval: " + why};
  }
  if (std::isnan(estimate.interval->low) || std::isnan(estimate.interval->high))
    return {Status::error, "the interval is not a number"};
  const Coverage covered = coverage(claim, *estimate.interval);
  if (covered.all) return {Status::pass, ""};
  if (covered.none) return {Status::fail, ""};
  return {Status::inconclusive,
          "the " + percent(*claim.confidence) + " interval holds values on both sides of the bound"};
}

Status without_waiver(Status status) { return status == Status::waived ? Status::pass : status; }

}  // namespace

std::string_view status_name(Status status) {
  static constexpr std::array<std::string_view, 6> kNames = {"pass",    "waived", "inconclusive",
                                                             "vacuous", "fail",   "error"};
  return kNames.at(static_cast<std::size_t>(status));
}

Status worst(Status a, Status b) { return std::max(a, b); }

Claim claim_of(const dsl::Expectation& expectation) {
  return {expectation.op, expectation.bound, expectation.confidence, expectation.beyond_control};
}

Decision decide(const Claim& claim, const Estimate& estimate, const std::optional<Control>& control) {
  const Decision decision = compared(claim, estimate);
  if (decision.status != Status::pass || !claim.beyond_control) return decision;
  return control ? beyond_control(*control) : Decision{Status::inconclusive, "no control was measured"};
}

Decision beyond_control(const Control& control) {
  if (control.p_holm <= kControlLevel) return {Status::pass, ""};
  char p[32];
  std::snprintf(p, sizeof p, "%.2g", control.p_holm);
  return {Status::inconclusive,
          "not beyond control: p = " + std::string(p) + " against " + std::to_string(control.n) + " " + control.kind};
}

Status across_status(std::span<const Status> combinations) {
  if (combinations.empty()) return Status::vacuous;
  const auto [best, worst] = std::minmax_element(combinations.begin(), combinations.end());
  return *best == *worst || *worst == Status::error ? *worst : Status::inconclusive;
}

double share_passing(std::span<const Status> combinations) {
  return static_cast<double>(std::count(combinations.begin(), combinations.end(), Status::pass)) /
         static_cast<double>(combinations.size());
}

Status worst_of(const std::vector<ExpectationResult>& expectations) {
  if (expectations.empty()) return Status::vacuous;
  Status status = Status::pass;
  for (const ExpectationResult& expectation : expectations) status = worst(status, expectation.status);
  return status;
}

void conclude(CheckResult& check) {
  check.status_before_waiver = worst_of(check.expectations);
  check.status = check.status_before_waiver;
  const bool covered =
      check.status == Status::fail || check.status == Status::inconclusive || check.status == Status::vacuous;
  if (covered && check.waiver && !check.waiver->expired) check.status = Status::waived;
}

void conclude(CheckResult& check, const dsl::Waiver* waiver, dsl::Date as_of) {
  check.waiver.reset();
  if (waiver) check.waiver = WaiverResult{waiver->until, waiver->by, waiver->because, as_of > waiver->until};
  conclude(check);
}

dsl::Date utc_today() {
  const auto days = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now());
  const std::chrono::year_month_day date(days);
  return {static_cast<int>(date.year()), static_cast<int>(static_cast<unsigned>(date.month())),
          static_cast<int>(static_cast<unsigned>(date.day()))};
}

std::string date_text(dsl::Date date) {
  char text[48];
  std::snprintf(text, sizeof text, "%04d-%02d-%02d", date.year, date.month, date.day);
  return text;
}

void Counts::add(Status status) {
  ++total;
  switch (status) {
    case Status::pass:
      ++passed;
      break;
    case Status::waived:
      ++waived;
      break;
    case Status::inconclusive:
      ++inconclusive;
      break;
    case Status::vacuous:
      ++vacuous;
      break;
    case Status::fail:
      ++failed;
      break;
    case Status::error:
      ++errors;
      break;
  }
}

std::vector<Judgement> judgements(const Report& report) {
  const auto experimental = [](const dsl::Annotations& annotations) {
    return annotations.status == dsl::Annotations::Status::experimental;
  };
  std::vector<Judgement> result;
  for (const CheckResult& check : report.checks)
    result.push_back({Judgement::Kind::check, check.name, check.status, check.severity, experimental(check.annotations),
                      &check.expectations, check.where, &check.annotations, check.waiver ? &*check.waiver : nullptr,
                      &check.under});
  for (const EditResult& edit : report.edits)
    result.push_back({Judgement::Kind::edit, edit.name, edit.status, dsl::CheckSeverity::major,
                      experimental(edit.annotations), &edit.expectations, edit.where, &edit.annotations});
  std::map<std::string, int> seen;
  for (const ExampleResult& example : report.examples) {
    std::string name = example.rule + " " + example.kind;
    if (const int nth = ++seen[name]; nth > 1) name += " (" + std::to_string(nth) + ")";
    result.push_back({Judgement::Kind::example, std::move(name), example.status, dsl::CheckSeverity::major,
                      experimental(example.annotations), nullptr, example.where, &example.annotations});
  }
  return result;
}

std::string_view kind_name(Judgement::Kind kind) {
  static constexpr std::array<std::string_view, 3> kNames = {"check", "edit", "example"};
  return kNames.at(static_cast<std::size_t>(kind));
}

std::string full_name(const Judgement& judgement) {
  return std::string(kind_name(judgement.kind)) + "/" + judgement.name;
}

Summary summarise(const Report& report) {
  Summary summary;
  for (const Judgement& judgement : judgements(report)) {
    switch (judgement.kind) {
      case Judgement::Kind::check:
        summary.checks.add(judgement.status);
        break;
      case Judgement::Kind::edit:
        summary.edits.add(judgement.status);
        break;
      case Judgement::Kind::example:
        summary.examples.add(judgement.status);
        break;
    }
  }
  summary.worst = report.worst_severity();
  return summary;
}

Status Report::verdict() const {
  Status verdict = Status::pass;
  for (const Judgement& judgement : judgements(*this))
    if (!judgement.experimental) verdict = worst(verdict, without_waiver(judgement.status));
  return verdict == Status::vacuous ? Status::inconclusive : verdict;
}

std::optional<dsl::CheckSeverity> Report::worst_severity() const {
  std::optional<dsl::CheckSeverity> highest;
  for (const Judgement& judgement : judgements(*this))
    if (!judgement.experimental && !judgement.stands() && (!highest || judgement.severity > *highest))
      highest = judgement.severity;
  return highest;
}

std::vector<Worsening> worsened(const Report& baseline, const Report& report) {
  const std::vector<Judgement> earlier = judgements(baseline);
  std::vector<Worsening> result;
  for (const Judgement& now : judgements(report)) {
    const auto before = std::find_if(earlier.begin(), earlier.end(), [&](const Judgement& other) {
      return other.kind == now.kind && other.name == now.name;
    });
    const bool known = before != earlier.end();
    const Status was = known ? without_waiver(before->status) : Status::pass;
    if (without_waiver(now.status) > was) {
      result.push_back({now, was, ""});
      continue;
    }
    if (now.stands() || !now.expectations) continue;
    for (const ExpectationResult& expectation : *now.expectations) {
      const auto same = std::find_if(before->expectations->begin(), before->expectations->end(),
                                     [&](const ExpectationResult& other) { return other.text == expectation.text; });
      const Status expectation_was = same != before->expectations->end() ? same->status : was;
      if (expectation.status > expectation_was) result.push_back({now, expectation_was, expectation.text});
    }
  }
  return result;
}

int exit_code(const Report& report, dsl::CheckSeverity fail_on, const Report* baseline) {
  if (report.verdict() == Status::error) return 1;
  const auto counts = [&](const Judgement& judgement) {
    return !judgement.experimental && !judgement.stands() && judgement.severity >= fail_on;
  };
  if (!baseline) {
    const std::vector<Judgement> all = judgements(report);
    return std::any_of(all.begin(), all.end(), counts);
  }
  const std::vector<Worsening> worse = worsened(*baseline, report);
  return std::any_of(worse.begin(), worse.end(), [&](const Worsening& w) { return counts(w.judgement); });
}

}  // namespace proviso::audit

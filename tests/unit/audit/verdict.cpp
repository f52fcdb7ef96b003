#include "audit/verdict.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

namespace proviso::audit {
namespace {

using dsl::CheckSeverity;
using dsl::Compare;

Estimate measured(double value, std::optional<Interval> interval = std::nullopt, std::string why = "") {
  return {value, 64, interval, 0.95, std::move(why)};
}

Status status_of(Compare op, double bound, Interval interval) {
  return decide({op, bound, 0.95, false}, measured((interval.low + interval.high) / 2, interval), std::nullopt).status;
}

CheckResult check_of(std::string name, std::vector<Status> statuses, CheckSeverity severity = CheckSeverity::major) {
  CheckResult check;
  check.name = std::move(name);
  check.severity = severity;
  for (const Status status : statuses) {
    check.expectations.emplace_back();
    check.expectations.back().status = status;
    check.expectations.back().text = "expectation " + std::to_string(check.expectations.size());
  }
  conclude(check, nullptr, {2026, 11, 23});
  return check;
}

Report report_of(std::vector<CheckResult> checks) {
  Report report;
  report.checks = std::move(checks);
  return report;
}

}  // namespace

TEST_CASE("Without a confidence the estimate is compared") {
  const Estimate estimate = measured(0.9, Interval{0.5, 1});
  CHECK(decide({Compare::greater_equal, 0.9, {}, false}, estimate, {}).status == Status::pass);
  CHECK(decide({Compare::greater, 0.9, {}, false}, estimate, {}).status == Status::fail);
  CHECK(decide({Compare::less_equal, 0.9, {}, false}, estimate, {}).status == Status::pass);
  CHECK(decide({Compare::less, 0.9, {}, false}, estimate, {}).status == Status::fail);
  CHECK(decide({Compare::equal, 0.9, {}, false}, estimate, {}).status == Status::pass);
  CHECK(decide({Compare::not_equal, 0.9, {}, false}, estimate, {}).status == Status::fail);
}

TEST_CASE("With a confidence the whole interval decides") {
  CHECK(status_of(Compare::less_equal, 0.5, {0.1, 0.5}) == Status::pass);
  CHECK(status_of(Compare::less, 0.5, {0.1, 0.5}) == Status::inconclusive);
  CHECK(status_of(Compare::less_equal, 0.5, {0.5, 0.9}) == Status::inconclusive);
  CHECK(status_of(Compare::less, 0.5, {0.5, 0.9}) == Status::fail);
  CHECK(status_of(Compare::greater_equal, 0.5, {0.5, 0.9}) == Status::pass);
  CHECK(status_of(Compare::greater_equal, 0.5, {0.1, 0.49}) == Status::fail);
  CHECK(status_of(Compare::greater, 0.5, {0.4, 0.6}) == Status::inconclusive);
  CHECK(status_of(Compare::equal, 0.5, {0.4, 0.6}) == Status::inconclusive);
  CHECK(status_of(Compare::equal, 0.5, {0.6, 0.7}) == Status::fail);
  CHECK(status_of(Compare::not_equal, 0.5, {0.6, 0.7}) == Status::pass);
  CHECK(status_of(Compare::not_equal, 0.5, {0.4, 0.6}) == Status::inconclusive);
}

TEST_CASE("What decides nothing says why") {
  const Decision none = decide({Compare::less, 1, 0.95, false}, measured(0, {}, "fewer than 8 prompts"), {});
  CHECK(none.status == Status::inconclusive);
  CHECK(none.reason == "no interval: fewer than 8 prompts");
  CHECK(decide({Compare::less, 1, {}, false}, measured(0, {}, "fewer than 8 prompts"), {}).status == Status::pass);

  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(decide({Compare::not_equal, 1, {}, false}, measured(nan), {}).status == Status::error);
  CHECK(decide({Compare::less, 1, 0.95, false}, measured(nan, {}, "no prompts"), {}).reason ==
        "the value is not a number: no prompts");
  CHECK(decide({Compare::less, 1, 0.95, false}, measured(0, Interval{nan, 1}), {}).status == Status::error);

  Estimate ratio = measured(-0.5, {}, "the interval of the value before covers 0");
  ratio.decidable = false;
  CHECK(decide({Compare::less, 0, {}, false}, ratio, {}).status == Status::inconclusive);
  CHECK(decide({Compare::less, 0, 0.95, false}, measured(-0.1, Interval{-0.3, 0.1}), {}).reason ==
        "the 95% interval holds values on both sides of the bound");
}

TEST_CASE("A control takes a pass away, where it is asked for, and nothing else") {
  Control near, far;
  near.n = 32;
  near.p_holm = 0.06;
  far.p_holm = 0.05;
  const Claim plain{Compare::less_equal, -0.1, {}, false}, beyond{Compare::less_equal, -0.1, {}, true};
  CHECK(decide(plain, measured(-0.3), near).status == Status::pass);
  CHECK(decide(beyond, measured(-0.3), far).status == Status::pass);
  CHECK(decide(beyond, measured(-0.3), near).status == Status::inconclusive);
  CHECK(decide(beyond, measured(-0.3), near).reason == "not beyond control: p = 0.06 against 32 random directions");
  CHECK(decide(beyond, measured(-0.3), {}).status == Status::inconclusive);
  CHECK(decide(beyond, measured(0), near).status == Status::fail);
}

TEST_CASE("A check is its worst expectation") {
  CHECK(check_of("c", {Status::pass, Status::inconclusive}).status == Status::inconclusive);
  CHECK(check_of("c", {Status::inconclusive, Status::vacuous}).status == Status::vacuous);
  CHECK(check_of("c", {Status::vacuous, Status::fail, Status::pass}).status == Status::fail);
  CHECK(check_of("c", {Status::fail, Status::error}).status == Status::error);
  CHECK(check_of("c", {}).status == Status::vacuous);
}

TEST_CASE("Repetitions pass together, fail together, or settle nothing") {
  using S = std::vector<Status>;
  CHECK(across_status(S{Status::pass, Status::pass}) == Status::pass);
  CHECK(across_status(S{Status::fail, Status::fail}) == Status::fail);
  CHECK(across_status(S{Status::pass, Status::fail}) == Status::inconclusive);
  CHECK(across_status(S{Status::pass, Status::error}) == Status::error);
  CHECK(across_status({}) == Status::vacuous);
  CHECK(share_passing(S{Status::pass, Status::fail, Status::pass, Status::inconclusive}) == 0.5);
}

TEST_CASE("A waiver holds through its day and covers no error") {
  dsl::Waiver waiver;
  waiver.until = {2027, 3, 31};
  waiver.by = "model-risk";
  waiver.because = "tracked as AUD-14";
  for (const Status status : {Status::fail, Status::inconclusive, Status::vacuous}) {
    CheckResult check = check_of("c", {status});
    conclude(check, &waiver, {2027, 3, 31});
    CHECK(check.status == Status::waived);
    CHECK(check.status_before_waiver == status);
    CHECK_FALSE(check.waiver->expired);
    conclude(check, &waiver, {2027, 4, 1});
    CHECK(check.status == status);
    CHECK(check.waiver->expired);
  }
  CheckResult broken = check_of("c", {Status::error}), fine = check_of("c", {Status::pass});
  conclude(broken, &waiver, {2027, 1, 1});
  conclude(fine, &waiver, {2027, 1, 1});
  CHECK(broken.status == Status::error);
  CHECK(fine.status == Status::pass);
  CHECK(fine.waiver->because == "tracked as AUD-14");
}

TEST_CASE("The verdict is the worst status; experimental, waived and vacuous as the contract says") {
  CHECK(Report().verdict() == Status::pass);
  Report report = report_of({check_of("a", {Status::pass}), check_of("b", {Status::vacuous}, CheckSeverity::minor)});
  CHECK(report.verdict() == Status::inconclusive);
  CHECK(report.worst_severity() == CheckSeverity::minor);
  report.checks[1].status = Status::waived;
  CHECK(report.verdict() == Status::pass);
  CHECK_FALSE(report.worst_severity());

  report.examples.emplace_back();
  report.examples[0].status = Status::fail;
  CHECK(report.verdict() == Status::fail);
  CHECK(report.worst_severity() == CheckSeverity::major);
  report.examples[0].annotations.status = dsl::Annotations::Status::experimental;
  CHECK(report.verdict() == Status::pass);

  const Summary summary = summarise(report);
  CHECK(summary.checks == Counts{2, 1, 0, 0, 0, 1, 0});
  CHECK(summary.examples == Counts{1, 0, 1, 0, 0, 0, 0});
  CHECK(summary.edits == Counts{});
}

TEST_CASE("The exit code minds severity and what is experimental") {
  Report report =
      report_of({check_of("a", {Status::pass}), check_of("b", {Status::inconclusive}, CheckSeverity::minor)});
  CHECK(exit_code(report) == 1);
  CHECK(exit_code(report, CheckSeverity::minor) == 1);
  CHECK(exit_code(report, CheckSeverity::major) == 0);
  report.checks[1].annotations.status = dsl::Annotations::Status::experimental;
  CHECK(exit_code(report) == 0);
  report.checks.push_back(check_of("c", {Status::error}, CheckSeverity::info));
  CHECK(exit_code(report, CheckSeverity::critical) == 1);
  CHECK(exit_code(Report()) == 0);
}

TEST_CASE("Against a baseline only what got worse fails") {
  const Report baseline = report_of({check_of("a", {Status::fail, Status::pass}), check_of("b", {Status::pass})});
  CHECK(exit_code(baseline, CheckSeverity::info, &baseline) == 0);

  SECTION("another status") {
    const Report report = report_of({baseline.checks[0], check_of("b", {Status::vacuous})});
    CHECK(exit_code(report, CheckSeverity::info, &baseline) == 1);
    CHECK(exit_code(report, CheckSeverity::critical, &baseline) == 0);
    const auto worse = worsened(baseline, report);
    REQUIRE(worse.size() == 1);
    CHECK(worse[0].judgement.name == "b");
    CHECK(worse[0].before == Status::pass);
  }
  SECTION("another expectation of a check that failed before") {
    const Report report = report_of({check_of("a", {Status::fail, Status::inconclusive}), baseline.checks[1]});
    const auto worse = worsened(baseline, report);
    REQUIRE(worse.size() == 1);
    CHECK(worse[0].expectation == "expectation 2");
    CHECK(exit_code(report, CheckSeverity::info, &baseline) == 1);
  }
  SECTION("something better, or a rewritten expectation of a failing check") {
    Report report = report_of({check_of("a", {Status::inconclusive, Status::pass}), baseline.checks[1]});
    CHECK(worsened(baseline, report).empty());
    report.checks[0] = check_of("a", {Status::fail});
    report.checks[0].expectations[0].text = "a stricter bound";
    CHECK(exit_code(report, CheckSeverity::info, &baseline) == 0);
  }
  SECTION("something new that fails") {
    Report report = baseline;
    report.checks.push_back(check_of("new", {Status::pass}));
    CHECK(exit_code(report, CheckSeverity::info, &baseline) == 0);
    report.checks.back() = check_of("new", {Status::fail});
    CHECK(exit_code(report, CheckSeverity::info, &baseline) == 1);
  }
  SECTION("a waiver that ran out") {
    Report waived = report_of({check_of("a", {Status::fail})});
    waived.checks[0].status = Status::waived;
    CHECK(exit_code(report_of({check_of("a", {Status::fail})}), CheckSeverity::info, &waived) == 1);
    CHECK(exit_code(waived, CheckSeverity::info, &waived) == 0);
  }
}

}  // namespace proviso::audit

#pragma once

// From measured numbers to statuses, from statuses to the verdict and the exit code. Nothing else in the
// program decides whether something passed.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/report.hpp"
#include "audit/statistics.hpp"
#include "dsl/rule_set.hpp"

namespace proviso::audit {

/// The part of an expectation that is compared: `… <= -10% beyond control at 95% confidence`.
struct Claim {
  dsl::Compare op = dsl::Compare::greater_equal;
  double bound = 0;
  std::optional<double> confidence;
  bool beyond_control = false;
};
Claim claim_of(const dsl::Expectation& expectation);

struct Decision {
  Status status = Status::error;
  std::string reason;  ///< "" for a plain pass or fail
};

/// Without a confidence the estimate is compared. With one, the claim passes only where the whole interval does, fails
/// only where none of it does, and is otherwise `inconclusive`, as it is where there is no interval. NaN is an
/// `error`. `beyond control` turns a pass into `inconclusive` where the control's Holm-corrected p exceeds 0.05; a
/// claim that the numbers refute stays a fail. `estimate.interval` is at the confidence asked for.
Decision decide(const Claim& claim, const Estimate& estimate, const std::optional<Control>& control);

/// Of a claim `beyond control` that the numbers hold: `inconclusive` where the corrected p exceeds 0.05, and why.
Decision beyond_control(const Control& control);

/// What `across` makes of its combinations: pass where all do, fail where all do, error where one is an error, and
/// otherwise `inconclusive`. Nothing to combine is `vacuous`.
Status across_status(std::span<const Status> combinations);
/// The share that held.
double share_passing(std::span<const Status> combinations);

/// The worst of the expectations; `vacuous` where there is none.
Status worst_of(const std::vector<ExpectationResult>& expectations);

/// Sets a check's statuses from its expectations and its waiver, if it has one. A waiver holds through the day it
/// names (UTC) and covers fail, inconclusive and vacuous, never error; a passing check stays `pass`.
void conclude(CheckResult& check, const dsl::Waiver* waiver, dsl::Date as_of);
/// The same with the waiver that the check's result carries.
void conclude(CheckResult& check);

/// Today in UTC: the date of a run without `--as-of`.
dsl::Date utc_today();
std::string date_text(dsl::Date date);  ///< "2027-03-31"

struct Counts {
  std::int64_t total = 0, passed = 0, failed = 0, inconclusive = 0, vacuous = 0, waived = 0, errors = 0;
  void add(Status status);
  bool operator==(const Counts&) const = default;
};

struct Summary {
  Counts checks, edits, examples;
  std::optional<dsl::CheckSeverity> worst;
  bool operator==(const Summary&) const = default;
};
/// Counts everything, experimental too.
Summary summarise(const Report& report);

/// What a report says of one check, edit or example, in the order of the report, which it points into.
struct Judgement {
  enum class Kind { check, edit, example } kind = Kind::check;
  std::string name;  ///< of an example: "keep_calm fires on", its second "keep_calm fires on (2)"
  Status status = Status::error;
  dsl::CheckSeverity severity = dsl::CheckSeverity::major;  ///< edits and examples are `major`
  bool experimental = false;
  const std::vector<ExpectationResult>* expectations = nullptr;  ///< null for an example
  std::string where;                                             ///< "capitals.proviso:47"
  const dsl::Annotations* annotations = nullptr;
  const WaiverResult* waiver = nullptr;             ///< null where there is none
  const std::vector<std::string>* under = nullptr;  ///< what a check is measured under; null for edits and examples

  /// pass and waived.
  bool stands() const { return status == Status::pass || status == Status::waived; }
};
std::vector<Judgement> judgements(const Report& report);
std::string_view kind_name(Judgement::Kind kind);   ///< "check", "edit", "example"
std::string full_name(const Judgement& judgement);  ///< "check/knows_capitals"

/// A status that is worse than it was. What the baseline does not have counts as having passed there; an expectation
/// that was rewritten is held against its check.
struct Worsening {
  Judgement judgement;
  Status before = Status::pass;
  std::string expectation;  ///< its text; "" where the whole is meant
};
std::vector<Worsening> worsened(const Report& baseline, const Report& report);

/// 0 or 1, for `audit`. 1 where the verdict is `error`, or something of at least `fail_on` neither passed nor is
/// waived; with a baseline, only where such a thing got worse. What is experimental never counts.
int exit_code(const Report& report, dsl::CheckSeverity fail_on = dsl::CheckSeverity::info,
              const Report* baseline = nullptr);

}  // namespace proviso::audit

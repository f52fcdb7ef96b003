#pragma once

// What changed from one report to another, and what of it got worse.

#include <optional>
#include <string>
#include <vector>

#include "audit/report.hpp"
#include "audit/report_tree.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {

/// `moved`: another number, but within noise, or noise cannot be told.
enum class Trend { same, moved, better, worse };

/// What tells a change from noise: `paired`, where the evidence of both reports holds every prompt of the measurement,
/// the same ones (cluster-t, and McNemar's test for shares); `intervals`, where both have an interval of one confidence
/// (`interval_of_difference`).
enum class Basis { none, paired, intervals };

struct ExpectationChange {
  std::string text;         ///< in the new report
  std::string text_before;  ///< where the same metric was compared with another bound; "" otherwise
  Status before = Status::pass, after = Status::pass;
  Estimate old_estimate, new_estimate;
  Basis basis = Basis::none;
  std::optional<Interval> difference;  ///< of new − old, at the confidence of both; null where the basis is `none`
  std::string why_not;                 ///< why noise cannot be told; "" otherwise
  bool beyond_noise = false;
  Trend trend = Trend::same;
};

/// A check, edit or example of which something changed. `before` is null where the old report does not have it, `after`
/// where the new one does not.
struct JudgementChange {
  Judgement::Kind kind = Judgement::Kind::check;
  std::string name, where;
  bool experimental = false;
  std::optional<Status> before, after;
  Trend trend = Trend::same;  ///< the worst of its own and its expectations'
  std::vector<ExpectationChange> expectations;
};

struct InputChange {
  std::string what, before, after;  ///< "model", "rules capitals.proviso", …; "" where it is not there
};

struct ReportDiff {
  struct Side {
    std::string path, model, date;
    Status verdict = Status::pass;
  };
  Side before, after;
  std::vector<InputChange> inputs;
  std::vector<JudgementChange> changes;  ///< in the new report's order, then what it no longer has

  /// How many do so; what is experimental never counts.
  std::int64_t count(Trend trend) const;
};

/// Something got worse where `worsened` says so (as `audit --baseline` does), or where its number moved away from the
/// bound that it is compared with by more than noise.
ReportDiff diff(const Report& before, const std::string& before_path, const Report& after,
                const std::string& after_path);

std::string to_text(const ReportDiff& diff, std::size_t columns, bool colour);
Tree tree_of(const ReportDiff& diff);

}  // namespace proviso::audit

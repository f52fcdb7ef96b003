// The report for people on a terminal.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "audit/circuits.hpp"
#include "audit/report.hpp"
#include "audit/report_words.hpp"
#include "audit/text_page.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {
namespace {

Style style_of(Status status) {
  switch (status) {
    case Status::pass:
      return Style::good;
    case Status::waived:
      return Style::set_aside;
    case Status::inconclusive:
    case Status::vacuous:
      return Style::open;
    case Status::fail:
    case Status::error:
      return Style::bad;
  }
  return Style::plain;
}

Cell status_cell(Status status) { return {std::string(status_name(status)), style_of(status)}; }

// ---- the head ------------------------------------------------------------------------------------------

void add_head(TextPage& page, const Report& report) {
  const Summary summary = summarise(report);
  std::vector<Cell> verdict = {{"verdict:"}, status_cell(report.verdict())};
  if (summary.worst) verdict.push_back({"(worst: " + std::string(dsl::severity_name(*summary.worst)) + ")"});
  page.line(0, verdict);

  page.labelled(0, "model", {model_text(report.model)});
  std::vector<std::string> files;
  for (const auto& [file, sha256] : report.rules) files.push_back(file);
  page.labelled(0, "rules", {joined(files)});
  const RunFacts& run = report.run;
  page.labelled(0, "run", {run_text(run)});
  if (!run.only.empty()) page.labelled(0, "only", {run.only});
  if (summary.checks.total > 0) page.labelled(0, "checks", {counts_text(summary.checks)});
  if (summary.edits.total > 0) page.labelled(0, "edits", {counts_text(summary.edits)});
  if (summary.examples.total > 0) page.labelled(0, "examples", {counts_text(summary.examples)});
}

// ---- expectations --------------------------------------------------------------------------------------

using Rows = std::vector<std::vector<Cell>>;

/// One row an expectation, the name and severity beside the first.
void add_rows(Rows& rows, Status status, const std::string& name, std::string_view severity,
              const std::vector<ExpectationResult>& expectations) {
  const std::vector<Cell> head = {status_cell(status), {name}, {std::string(severity), Style::dim}};
  if (expectations.empty()) rows.push_back(head);
  for (const ExpectationResult& expectation : expectations) {
    const Written written = read_expectation(expectation.text);
    std::vector<Cell> row = &expectation == &expectations.front() ? head : std::vector<Cell>(3);
    // A check that is waived stands as such where its one expectation does not.
    if (expectations.size() > 1) row[0] = status_cell(expectation.status);
    row.insert(row.end(), {{measured_text(expectation.estimate, written)},
                           {asked_text(expectation, written)},
                           {grouped(expectation.estimate.n), Style::dim},
                           {written.metric, Style::dim}});
    rows.push_back(std::move(row));
  }
}

void add_table(TextPage& page, const std::string& subject, Rows rows) {
  page.table(2,
             {{"status"},
              {subject, false, true},
              {"severity", false, false, true},
              {"measured"},
              {"bound"},
              {"n", true, false, true},
              {"metric", false, true, true}},
             std::move(rows));
}

void add_evidence(TextPage& page, std::size_t indent, const std::vector<Evidence>& evidence, bool percent) {
  for (const Evidence& item : evidence)
    page.labelled(indent, &item == &evidence.front() ? "worst" : "", {evidence_text(item, percent)});
}

/// Everything known about an expectation that did not pass.
void add_expectation(TextPage& page, std::size_t indent, const ExpectationResult& expectation) {
  const Written written = read_expectation(expectation.text);
  const Estimate& estimate = expectation.estimate;
  page.labelled(indent, "expected", {expectation.text});
  page.labelled(indent, "measured", {measurement_text(expectation, written)});
  if (!estimate.interval && !estimate.why_no_interval.empty())
    page.labelled(indent, "interval", {"none: " + estimate.why_no_interval});
  if (!expectation.reason.empty()) page.labelled(indent, "reason", {expectation.reason, style_of(expectation.status)});
  if (expectation.control) page.labelled(indent, "control", {control_text(*expectation.control, written)});
  if (!expectation.attacked.empty()) page.labelled(indent, "attacks", {attacked_text(expectation)});
  for (const SearchResult& search : expectation.searched)
    page.labelled(indent, &search == &expectation.searched.front() ? "searched" : "", {searched_text(search)});
  if (!expectation.moved.empty()) page.labelled(indent, "moved", {moved_text(expectation)});
  if (const std::string evaded = evaded_text(expectation); !evaded.empty())
    page.labelled(indent, "evaded", {evaded, style_of(Status::fail)});
  if (expectation.across) page.labelled(indent, "across", {across_text(*expectation.across, written)});
  add_evidence(page, indent, expectation.evidence, prompts_in_percent(written, expectation.text));
}

void add_what_did_not_pass(TextPage& page, Status status, const std::string& name, std::string_view severity,
                           const std::string& where, const dsl::Annotations& annotations,
                           const std::vector<ExpectationResult>& expectations,
                           const std::optional<WaiverResult>& waiver, const std::vector<std::string>& under) {
  page.line(2, {status_cell(status), {name, Style::strong}, {std::string(severity)}, {where, Style::dim}});
  if (!annotations.title.empty()) page.line(4, {{annotations.title}});
  if (const std::string remark = remarks(annotations); !remark.empty()) page.line(4, {{remark, Style::set_aside}});
  if (waiver) page.labelled(4, waiver->expired ? "expired" : "waived", {waiver_text(*waiver), Style::set_aside});
  if (!under.empty()) page.labelled(4, "under", {joined(under)});
  for (const ExpectationResult& expectation : expectations)
    if (expectation.status != Status::pass) add_expectation(page, 4, expectation);
}

// ---- edits, examples, activity ---------------------------------------------------------------------------

void add_certificate(TextPage& page, const EditResult& edit) {
  page.line(2, {status_cell(edit.status), {edit.name, Style::strong}, {edit.where, Style::dim}});
  page.labelled(4, "method", {method_text(edit)});
  for (const TensorChange& change : edit.changes)
    page.labelled(4, &change == &edit.changes.front() ? "changed" : "", {change_text(change)});
  if (edit.changes.empty()) page.labelled(4, "changed", {"nothing", Style::open});
  const auto numbers = [&page](const char* label, const std::vector<std::pair<std::string, double>>& values) {
    if (!values.empty()) page.labelled(4, label, {listed(values)});
  };
  constexpr std::size_t kPartsShown = 8;  // an edit of many facts has as many
  for (std::size_t i = 0; i < std::min(kPartsShown, edit.parts.size()); ++i) {
    const CertificatePart& part = edit.parts[i];
    numbers("algebra", part.algebra);
    numbers("predicted", part.predicted);
    numbers("measured", part.measured);
  }
  if (edit.parts.size() > kPartsShown)
    page.labelled(4, "and",
                  {grouped(static_cast<std::int64_t>(edit.parts.size() - kPartsShown)) + " more facts, in the YAML"});
  numbers("costs", edit.costs);
}

void add_examples(TextPage& page, const std::vector<ExampleResult>& examples) {
  Rows rows;
  for (const ExampleResult& example : examples)
    rows.push_back({status_cell(example.status),
                    {example.rule},
                    {example.kind},
                    {grouped(example.fired) + " of " + grouped(example.prompts)},
                    {example.where, Style::dim},
                    {remarks(example.annotations), Style::set_aside}});
  page.table(2, {{"status"}, {"rule", false, true}, {"is to be"}, {"fired"}, {"where", false, true}, {""}}, rows);
  for (const ExampleResult& example : examples) {
    if (example.status == Status::pass || example.evidence.empty()) continue;
    page.line(
        2,
        {status_cell(example.status), {example.rule + " " + example.kind, Style::strong}, {example.where, Style::dim}});
    for (const Evidence& item : example.evidence)
      if (!item.prompt.empty())
        page.labelled(4, &item == &example.evidence.front() ? "prompts" : "", {quoted(item.prompt)});
  }
}

void add_activity(TextPage& page, const std::vector<RuleActivity>& activity) {
  Rows rows;
  for (const RuleActivity& rule : activity)
    rows.push_back({{rule.rule},
                    {rule.feature},
                    {rule.site},
                    {rule.form, Style::dim},
                    {grouped(rule.active) + " of " + grouped(rule.positions)},
                    {number_text(rule.mean)},
                    {number_text(rule.max)},
                    {number_text(rule.relative_change, true)},
                    {number_text(rule.relative_change_at_0, true)}});
  page.table(2,
             {{"rule", false, true},
              {"feature", false, true},
              {"site", false, true},
              {"form", false, false, true},
              {"active", true},
              {"mean", true},
              {"max", true},
              {"change", true},
              {"at 0", true, false, true}},
             std::move(rows));
  page.line(2,
            {{"The first position is left out; change is the mean of |dx| / |x| where the rule acted, and at 0 that of "
              "the first position.",
              Style::dim}});
}

Style style_of_outcome(const std::string& outcome) {
  if (outcome == "caught") return Style::good;
  if (outcome == "doubted") return Style::open;
  return outcome == "missed" ? Style::bad : Style::dim;
}

void add_planted(TextPage& page, const PlantedFaults& planted) {
  page.line(2, {{planted_text(planted)}});
  Rows rows;
  for (const FaultTally& tally : planted.kinds)
    rows.push_back({{tally.kind},
                    {tally.strength},
                    {grouped(tally.planted)},
                    {grouped(tally.caught)},
                    {grouped(tally.doubted)},
                    {tally_share_text(tally)}});
  page.table(2, {{"fault"}, {"strength"}, {"planted", true}, {"caught", true}, {"doubted", true}, {"found"}}, rows);
  rows.clear();
  for (const FaultResult& fault : planted.faults)
    rows.push_back({{fault.outcome, style_of_outcome(fault.outcome)},
                    {fault.kind},
                    {fault.strength},
                    {fault.what},
                    {fault.kl ? number_text(*fault.kl) : ""},
                    {fault_result_text(fault)}});
  page.table(2,
             {{"outcome"},
              {"fault"},
              {"strength", false, false, true},
              {"where", false, true},
              {"kl", true, false, true},
              {"", false, true}},
             rows);
  for (const std::string& alarm : alarms_text(planted)) page.labelled(2, "alarm", {alarm, Style::bad});
  for (const auto& [kind, why] : planted.left_out) page.labelled(2, kind, {"none planted: " + why, Style::dim});
}

/// Rules that attacks silence, also where the check passes.
void add_evaded(TextPage& page, const Report& report) {
  bool any = false;
  for (const CheckResult& check : report.checks) {
    for (const ExpectationResult& expectation : check.expectations) {
      const std::string evaded = evaded_text(expectation);
      if (evaded.empty()) continue;
      if (!std::exchange(any, true)) page.heading("Evaded");
      page.line(2, {{check.name, Style::strong}, {joined(check.under), Style::dim}});
      page.labelled(4, "", {evaded, style_of(Status::fail)});
    }
  }
}

}  // namespace

std::string to_text(const Report& report, std::size_t columns, bool colour) {
  TextPage page(columns, colour);
  add_head(page, report);

  Rows rows;
  for (const CheckResult& check : report.checks)
    add_rows(rows, check.status, check.name, dsl::severity_name(check.severity), check.expectations);
  if (!rows.empty()) {
    page.heading("Checks");
    add_table(page, "check", rows);
  }
  if (!report.edits.empty()) {
    page.heading("Edits");
    for (const EditResult& edit : report.edits) add_certificate(page, edit);
    rows.clear();
    for (const EditResult& edit : report.edits) add_rows(rows, edit.status, edit.name, "", edit.expectations);
    add_table(page, "edit", rows);
  }
  if (!report.examples.empty()) {
    page.heading("Examples");
    add_examples(page, report.examples);
  }
  if (!report.circuits.empty()) {
    page.heading("Circuits");
    for (const CircuitResult& circuit : report.circuits) add_circuit(page, circuit, 0);
  }
  if (!report.rule_activity.empty()) {
    page.heading("Rule activity");
    add_activity(page, report.rule_activity);
  }

  add_evaded(page, report);
  if (report.planted_faults) {
    page.heading("Planted faults");
    add_planted(page, *report.planted_faults);
  }

  const auto stands = [](const auto& result) { return result.status == Status::pass; };
  if (!std::all_of(report.checks.begin(), report.checks.end(), stands) ||
      !std::all_of(report.edits.begin(), report.edits.end(), stands)) {
    page.heading("What did not pass");
    for (const CheckResult& check : report.checks)
      if (!stands(check))
        add_what_did_not_pass(page, check.status, check.name, dsl::severity_name(check.severity), check.where,
                              check.annotations, check.expectations, check.waiver, check.under);
    for (const EditResult& edit : report.edits)
      if (!stands(edit))
        add_what_did_not_pass(page, edit.status, edit.name, "", edit.where, edit.annotations, edit.expectations,
                              std::nullopt, {});
  }
  return page.take();
}

}  // namespace proviso::audit

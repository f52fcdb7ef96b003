// The report for people on a terminal.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "audit/report.hpp"
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

std::string grouped(std::int64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t at = text.size(); at > 3 && text[at - 4] != '-';) text.insert(at -= 3, ",");
  return text;
}

std::string counted(std::int64_t count, const std::string& noun) {
  return grouped(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string joined(const std::vector<std::string>& parts, const std::string& separator = ", ") {
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : separator) + part;
  return all;
}

// ---- numbers ---------------------------------------------------------------------------------------

/// What the canonical text of an expectation says: `accuracy(capitals)`, `>=`, 0.9, written as `90%`.
struct Written {
  std::string metric;
  std::string comparison;  ///< ">= 90%"
  double bound = 0;
  bool percent = false;
};

/// Whether the values of single prompts are shares where the metric is: an area's are activations, a rise's
/// perplexities.
bool prompts_in_percent(const Written& written, const std::string& text) {
  const auto has = [&text](std::string_view part) { return text.find(part) != std::string::npos; };
  return written.percent && !has("auroc(") && !has("perplexity_rise(") && !has("% relative");
}

Written read_text(const std::string& text) {
  // A metric may compare, too (`firing_rate(f > 1, on: p) <= 2%`): the last comparison with a number is the bound.
  constexpr std::array<std::string_view, 6> kOperators = {" <= ", " >= ", " < ", " > ", " == ", " != "};
  Written written{text, "", 0, false};
  std::size_t last = 0;
  for (const std::string_view op : kOperators) {
    const std::size_t at = text.rfind(op);
    if (at == std::string::npos || at < last) continue;
    const char* begin = text.data() + at + op.size();
    double bound = 0;
    const auto [stop, error] = std::from_chars(begin, text.data() + text.size(), bound);
    if (error != std::errc()) continue;
    last = at;
    const bool percent = stop != text.data() + text.size() && *stop == '%';
    written = {text.substr(0, at), std::string(text.data() + at + 1, stop) + (percent ? "%" : ""),
               percent ? bound / 100 : bound, percent};
  }
  return written;
}

std::string number_text(double value, int digits, bool percent) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char text[48];
  std::snprintf(text, sizeof text, "%.*g", digits, percent ? value * 100 : value);
  return std::string(text) + (percent ? "%" : "");
}

std::string number_text(double value, bool percent = false) { return number_text(value, 4, percent); }

/// Rounded, but never onto or across the bound: 89.996% is not shown as 90% beside `>= 90%`.
std::string number_text(double value, const Written& written) {
  const auto side = [&written](double x) { return (x > written.bound) - (x < written.bound); };
  for (int digits = 4; digits < 17; ++digits) {
    const std::string text = number_text(value, digits, written.percent);
    const double shown = std::strtod(text.c_str(), nullptr) / (written.percent ? 100 : 1);
    const bool same_side = side(shown) == side(value) || std::abs(shown - value) < 1e-15 * std::abs(value);
    if (std::isnan(value) || same_side) return text;
  }
  return number_text(value, 17, written.percent);
}

std::string measured(const Estimate& estimate, const Written& written) {
  std::string text = number_text(estimate.value, written);
  if (const auto& interval = estimate.interval)
    text += " [" + number_text(interval->low, written) + ", " + number_text(interval->high, written) + "]";
  return text;
}

std::string listed(const std::vector<std::pair<std::string, double>>& values) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : values) parts.push_back(name + " " + number_text(value));
  return joined(parts, "; ");
}

std::string quoted(const std::string& text) {
  constexpr std::size_t kLongest = 200;
  std::string escaped;
  for (const char c : shortened(text, kLongest)) escaped += c == '"' ? "\\\"" : std::string(1, c);
  return "\"" + escaped + "\"";
}

// ---- the head ------------------------------------------------------------------------------------------

std::string counts_text(const Counts& counts) {
  std::vector<std::string> parts;
  const auto add = [&parts](std::int64_t count, const char* what) {
    if (count > 0) parts.push_back(grouped(count) + " " + what);
  };
  add(counts.passed, "passed");
  add(counts.failed, "failed");
  add(counts.inconclusive, "inconclusive");
  add(counts.vacuous, "vacuous");
  add(counts.waived, "waived");
  add(counts.errors, counts.errors == 1 ? "error" : "errors");
  return joined(parts) + " of " + grouped(counts.total);
}

void add_head(TextPage& page, const Report& report) {
  const Summary summary = summarise(report);
  std::vector<Cell> verdict = {{"verdict:"}, status_cell(report.verdict())};
  if (summary.worst) verdict.push_back({"(worst: " + std::string(dsl::severity_name(*summary.worst)) + ")"});
  page.line(0, verdict);

  const ModelFacts& model = report.model;
  page.labelled(0, "model", {joined({model.name, model.family, counted(model.parameters, "parameter"), model.dtype})});
  std::vector<std::string> files;
  for (const auto& [file, sha256] : report.rules) files.push_back(file);
  page.labelled(0, "rules", {joined(files)});
  const RunFacts& run = report.run;
  page.labelled(
      0, "run",
      {joined({run.date, "seed " + std::to_string(run.seed), run.device, counted(run.threads, "thread")}) + "; " +
       counted(run.sequences, "sequence") + ", " + counted(run.tokens, "token") + " (" + grouped(run.tokens_saved) +
       " saved)" + (run.seconds > 0 ? ", " + number_text(run.seconds) + " s" : "")});
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
    const Written written = read_text(expectation.text);
    std::string bound = written.comparison;
    if (expectation.asked_confidence) bound += " at " + number_text(*expectation.asked_confidence, true);
    std::vector<Cell> row = &expectation == &expectations.front() ? head : std::vector<Cell>(3);
    // A check that is waived stands as such where its one expectation does not.
    if (expectations.size() > 1) row[0] = status_cell(expectation.status);
    row.insert(row.end(), {{measured(expectation.estimate, written)},
                           {bound},
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
  for (const Evidence& item : evidence) {
    std::string text = item.before ? number_text(*item.before, percent) + " -> " : "";
    text += number_text(item.after, percent);
    if (!item.prompt.empty()) text += ": " + quoted(item.prompt);
    if (!item.output.empty()) text += " gave " + quoted(item.output);
    page.labelled(indent, &item == &evidence.front() ? "worst" : "", {text});
  }
}

/// "seed 0, as written 71.88% (pass); …"
std::string combinations(const AcrossResult& across, const Written& written) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < across.values.size(); ++i) {
    const auto& [name, value] = across.values[i];
    const std::string status =
        i < across.statuses.size() ? " (" + std::string(status_name(across.statuses[i].second)) + ")" : "";
    parts.push_back(name + " " + number_text(value, written) + status);
  }
  return joined(parts, "; ");
}

/// Everything known about an expectation that did not pass.
void add_expectation(TextPage& page, std::size_t indent, const ExpectationResult& expectation) {
  const Written written = read_text(expectation.text);
  const Estimate& estimate = expectation.estimate;
  page.labelled(indent, "expected", {expectation.text});
  std::string value = measured(estimate, written);
  if (estimate.interval) value += " at " + number_text(estimate.confidence, true) + " confidence";
  if (estimate.p) value += ", McNemar's p " + number_text(*estimate.p);
  value += ", " + counted(estimate.n, "prompt");
  if (expectation.baseline) value += "; " + number_text(*expectation.baseline, written.percent) + " without it";
  page.labelled(indent, "measured", {value});
  if (!estimate.interval && !estimate.why_no_interval.empty())
    page.labelled(indent, "interval", {"none: " + estimate.why_no_interval});
  if (!expectation.reason.empty()) page.labelled(indent, "reason", {expectation.reason, style_of(expectation.status)});
  if (const auto& control = expectation.control)
    page.labelled(
        indent, "control",
        {grouped(control->n) + " " + control->kind + ": mean " + number_text(control->value, written.percent) +
         ", spread " + number_text(control->spread, written.percent) + "; rank " + grouped(control->rank) + " of " +
         grouped(control->n + 1) + ", p " + number_text(control->p) + ", corrected " + number_text(control->p_holm)});
  if (!expectation.attacked.empty()) {
    std::vector<std::string> attacks;
    for (const auto& [attack, changed] : expectation.attacked)
      attacks.push_back(attack + " changed " + counted(changed, "prompt"));
    page.labelled(indent, "attacks", {joined(attacks, "; ")});
  }
  if (const auto& across = expectation.across)
    page.labelled(indent, "across",
                  {"held in " + number_text(across->held, true) + " of " +
                   counted(across->combinations, "combination") + ": " + combinations(*across, written)});
  add_evidence(page, indent, expectation.evidence, prompts_in_percent(written, expectation.text));
}

std::string remarks(const dsl::Annotations& annotations) {
  switch (annotations.status) {
    case dsl::Annotations::Status::stable:
      return "";
    case dsl::Annotations::Status::experimental:
      return "experimental: does not count";
    case dsl::Annotations::Status::deprecated:
      return "deprecated";
  }
  return "";
}

void add_what_did_not_pass(TextPage& page, Status status, const std::string& name, std::string_view severity,
                           const std::string& where, const dsl::Annotations& annotations,
                           const std::vector<ExpectationResult>& expectations,
                           const std::optional<WaiverResult>& waiver, const std::vector<std::string>& under) {
  page.line(2, {status_cell(status), {name, Style::strong}, {std::string(severity)}, {where, Style::dim}});
  if (!annotations.title.empty()) page.line(4, {{annotations.title}});
  if (const std::string remark = remarks(annotations); !remark.empty()) page.line(4, {{remark, Style::set_aside}});
  if (waiver)
    page.labelled(
        4, waiver->expired ? "expired" : "waived",
        {"until " + date_text(waiver->until) + " by " + waiver->by + ": " + waiver->because, Style::set_aside});
  if (!under.empty()) page.labelled(4, "under", {joined(under)});
  for (const ExpectationResult& expectation : expectations)
    if (expectation.status != Status::pass) add_expectation(page, 4, expectation);
}

// ---- edits, examples, activity ---------------------------------------------------------------------------

void add_certificate(TextPage& page, const EditResult& edit) {
  std::vector<std::string> parameters;
  for (const auto& [name, value] : edit.parameters) parameters.push_back(name + ": " + value);
  page.line(2, {status_cell(edit.status), {edit.name, Style::strong}, {edit.where, Style::dim}});
  page.labelled(4, "method", {edit.method + "(" + joined(parameters) + ")"});
  for (const TensorChange& change : edit.changes) {
    std::vector<std::string> shape;
    for (const std::int64_t size : change.shape) shape.push_back(std::to_string(size));
    page.labelled(4, &change == &edit.changes.front() ? "changed" : "",
                  {change.tensor + " [" + joined(shape) + "], rank " + grouped(change.rank) + ", norm " +
                   number_text(change.norm) + ", " + number_text(change.relative_norm, true) + " of the tensor's"});
  }
  if (edit.changes.empty()) page.labelled(4, "changed", {"nothing", Style::open});
  const auto numbers = [&page](const char* label, const std::vector<std::pair<std::string, double>>& values) {
    if (!values.empty()) page.labelled(4, label, {listed(values)});
  };
  for (const CertificatePart& part : edit.parts) {
    numbers("algebra", part.algebra);
    numbers("predicted", part.predicted);
    numbers("measured", part.measured);
  }
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

}  // namespace

std::string expectation_line(const ExpectationResult& expectation) {
  std::string line = expectation.text + ": " + measured(expectation.estimate, read_text(expectation.text)) + ", " +
                     counted(expectation.estimate.n, "prompt");
  if (!expectation.reason.empty()) line += "; " + expectation.reason;
  return harmless(line);
}

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
  if (!report.rule_activity.empty()) {
    page.heading("Rule activity");
    add_activity(page, report.rule_activity);
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

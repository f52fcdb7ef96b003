// The report as GitHub's Markdown: for a pull request's comment or a job's summary.

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "audit/circuits.hpp"
#include "audit/markdown.hpp"
#include "audit/markup.hpp"
#include "audit/report.hpp"
#include "audit/report_words.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {
namespace {

using namespace markdown;

/// A row for each expectation, the name beside the first.
std::string rows_of(const Judgement& judgement) {
  const bool check = judgement.kind == Judgement::Kind::check;
  const std::string severity(check ? dsl::severity_name(judgement.severity) : "");
  const std::string name = code(judgement.name) + (judgement.experimental ? " (experimental: does not count)" : "");
  std::string text;
  bool first = true;
  for (const ExpectationResult& expectation : *judgement.expectations) {
    const Written written = read_expectation(expectation.text);
    // A check that is waived stands as such where its one expectation does not.
    const Status status = judgement.expectations->size() > 1 ? expectation.status : judgement.status;
    text += row({signed_name(status), first ? name : "", first ? severity : "",
                 plain(measured_text(expectation.estimate, written)), plain(asked_text(expectation, written)),
                 grouped(expectation.estimate.n), code(written.metric)});
    first = false;
  }
  if (judgement.expectations->empty()) text += row({signed_name(judgement.status), name, severity, "", "", "", ""});
  return text;
}

std::string results_table(const std::vector<Judgement>& all, Judgement::Kind kind, const std::string& title) {
  std::string rows;
  for (const Judgement& judgement : all)
    if (judgement.kind == kind) rows += rows_of(judgement);
  if (rows.empty()) return "";
  return header({"status", title, "severity", "measured", "asked", "n", "metric"}) + rows + "\n";
}

std::string examples_table(const Report& report) {
  if (report.examples.empty()) return "";
  std::string text = header({"status", "rule", "is to be", "fired"});
  for (const ExampleResult& example : report.examples)
    text += row({signed_name(example.status), code(example.rule), example.kind,
                 grouped(example.fired) + " of " + grouped(example.prompts)});
  return text + "\n";
}

std::string expectation_notes(const ExpectationResult& expectation) {
  const Written written = read_expectation(expectation.text);
  std::string text = "- " + signed_name(expectation.status) + " " + code(expectation.text) + "\n";
  const auto note = [&text](const char* label, const std::string& what) {
    if (!what.empty()) text += std::string("  - ") + label + ": " + what + "\n";
  };
  note("measured", plain(measurement_text(expectation, written)));
  if (!expectation.estimate.interval) note("no interval", plain(expectation.estimate.why_no_interval));
  note("reason", plain(expectation.reason));
  if (expectation.control) note("control", plain(control_text(*expectation.control, written)));
  note("attacks", plain(attacked_text(expectation)));
  for (const SearchResult& search : expectation.searched) note("searched", plain(searched_text(search)));
  note("moved", plain(moved_text(expectation)));
  note("evaded", plain(evaded_text(expectation)));
  if (expectation.across) note("across", plain(across_text(*expectation.across, written)));
  const bool percent = prompts_in_percent(written, expectation.text);
  for (const Evidence& item : expectation.evidence) note("worst", code(evidence_text(item, percent)));
  return text;
}

/// Everything known about what did not pass.
std::string notes(const Judgement& judgement) {
  std::string text;
  if (judgement.waiver)
    text += std::string(judgement.waiver->expired ? "The waiver has expired: " : "Waived ") +
            plain(waiver_text(*judgement.waiver)) + "\n\n";
  const dsl::Annotations& says = *judgement.annotations;
  for (const std::string* said : {&says.title, &says.description})
    if (!said->empty()) text += plain(*said) + "\n\n";
  if (judgement.under && !judgement.under->empty()) text += "Under " + plain(joined(*judgement.under)) + "\n\n";
  for (const ExpectationResult& expectation : *judgement.expectations)
    if (expectation.status != Status::pass) text += expectation_notes(expectation);
  return fold(
      signed_name(judgement.status) + " " + summary_code(judgement.name) + " at " + summary_code(judgement.where),
      text);
}

std::string example_notes(const ExampleResult& example) {
  std::string text;
  for (const Evidence& item : example.evidence)
    if (!item.prompt.empty()) text += "- " + code(quoted(item.prompt)) + "\n";
  if (text.empty()) return "";
  return fold(signed_name(example.status) + " " + summary_code(example.rule + " " + example.kind) + " at " +
                  summary_code(example.where),
              text);
}

std::string certificates(const Report& report) {
  std::string text;
  for (const EditResult& edit : report.edits) {
    text += "- " + code(edit.name) + ": " + code(method_text(edit)) + "\n";
    for (const TensorChange& change : edit.changes) text += "  - changed: " + code(change_text(change)) + "\n";
    if (edit.changes.empty()) text += "  - changed nothing\n";
    if (!edit.costs.empty()) text += "  - cost: " + plain(listed(edit.costs)) + "\n";
  }
  return text.empty() ? "" : fold("Certificates of the edits", text);
}

std::string circuits(const Report& report) {
  std::string text;
  for (const CircuitResult& circuit : report.circuits) {
    text += "- " + code(circuit.name) + "\n";
    for (const auto& [label, what] : circuit_facts(circuit)) text += "  - " + label + ": " + plain(what) + "\n";
  }
  return text.empty() ? "" : fold("Circuits", text);
}

std::string planted(const Report& report) {
  if (!report.planted_faults) return "";
  const PlantedFaults& planted = *report.planted_faults;
  std::string text;
  if (!planted.faults.empty()) text += header({"outcome", "fault", "strength", "where", "kl", "how"});
  for (const FaultResult& fault : planted.faults)
    text += row({fault.outcome, fault.kind, fault.strength, code(fault.what), fault.kl ? number_text(*fault.kl) : "",
                 plain(fault_result_text(fault))});
  text += "\n";
  for (const std::string& alarm : alarms_text(planted)) text += "- false alarm, " + plain(alarm) + "\n";
  for (const auto& [kind, why] : planted.left_out) text += "- " + kind + ": none planted: " + plain(why) + "\n";
  return fold("Planted faults: " + markup(planted_text(planted)), text);
}

/// Rules that attacks silence, also where the check passes.
std::string evaded(const Report& report) {
  std::string text;
  for (const CheckResult& check : report.checks)
    for (const ExpectationResult& expectation : check.expectations)
      if (const std::string how = evaded_text(expectation); !how.empty())
        text += "- Evaded: " + code(check.name) + " under " + plain(joined(check.under)) + ": " + plain(how) + "\n";
  return text.empty() ? "" : text + "\n";
}

/// By tag the worst status of what bears it, and who does.
std::string tags(const std::vector<Judgement>& all) {
  std::map<std::string, std::vector<const Judgement*>> by_tag;
  for (const Judgement& judgement : all)
    for (const std::string& tag : judgement.annotations->tags) by_tag[tag].push_back(&judgement);
  if (by_tag.empty()) return "";
  std::string text = header({"tag", "status", "borne by"});
  for (const auto& [tag, bearers] : by_tag) {
    Status status = Status::pass;
    std::vector<std::string> names;
    for (const Judgement* judgement : bearers) {
      status = worst(status, judgement->status);
      names.push_back(code(judgement->name) + " " + std::string(status_name(judgement->status)));
    }
    text += row({code(tag), signed_name(status), joined(names)});
  }
  return fold("Tags", text);
}

std::string provenance(const Report& report) {
  std::string text = "- model: " + plain(model_text(report.model)) + ", SHA-256 " + code(report.model.sha256) + "\n";
  text += "- program: Proviso " + plain(report.version) + "\n- run: " + plain(run_text(report.run)) + "\n";
  for (const auto& [file, sha256] : report.rules) text += "- rules: " + code(file) + " " + code(sha256) + "\n";
  for (const auto& [file, sha256] : report.data) text += "- data: " + code(file) + " " + code(sha256) + "\n";
  for (const MergedPart& part : report.run.merged)
    text += "- merged from: " + code(part.file) + " " + code(part.sha256) + "\n";
  return fold("What was run", text);
}

}  // namespace

std::string to_markdown(const Report& report) {
  const Summary summary = summarise(report);
  const std::vector<Judgement> all = judgements(report);
  std::string text = "## " + signed_name(report.verdict()) + ": Proviso audit of " + plain(report.model.name) + "\n\n";
  std::vector<std::string> counts;
  const auto count = [&counts](const char* what, const Counts& of) {
    if (of.total > 0) counts.push_back(what + counts_text(of));
  };
  count("checks: ", summary.checks);
  count("edits: ", summary.edits);
  count("examples: ", summary.examples);
  text += joined(counts, "; ");
  if (summary.worst) text += ". The worst that does not pass is " + std::string(dsl::severity_name(*summary.worst));
  text += ".\n\n";
  if (!report.run.only.empty()) text += "Only a part was run: " + code(report.run.only) + "\n\n";

  text += results_table(all, Judgement::Kind::check, "check") + results_table(all, Judgement::Kind::edit, "edit") +
          examples_table(report) + evaded(report);
  for (const Judgement& judgement : all)
    if (judgement.expectations && judgement.status != Status::pass) text += notes(judgement);
  for (const ExampleResult& example : report.examples)
    if (example.status != Status::pass) text += example_notes(example);
  return text + planted(report) + certificates(report) + circuits(report) + tags(all) + provenance(report);
}

}  // namespace proviso::audit

// A draft of the technical documentation that Annex IV of Regulation (EU) 2024/1689 (the AI Act) asks for, as far as an
// audit can fill it in: what was tested, how, and what came of it. What only the provider knows is asked for by name.

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "audit/markdown.hpp"
#include "audit/report.hpp"
#include "audit/report_words.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {
namespace {

using namespace markdown;

std::string to_write(std::string_view what) {
  return "> **To be written by the provider:** " + std::string(what) + "\n\n";
}

std::string heading(std::string_view title) { return "## " + std::string(title) + "\n\n"; }

std::string item(std::string_view label, const std::string& what) {
  return what.empty() ? "" : "- " + std::string(label) + ": " + what + "\n";
}

/// "4 of 5 stand; does not: `anger_is_causal` (fail)".
std::string tally(const std::vector<const Judgement*>& bearers) {
  std::vector<std::string> others;
  for (const Judgement* judgement : bearers)
    if (judgement->status != Status::pass)
      others.push_back(code(judgement->name) + " (" + std::string(status_name(judgement->status)) +
                       (judgement->experimental ? ", experimental" : "") + ")");
  const auto all = static_cast<std::int64_t>(bearers.size());
  const std::string passed =
      grouped(all - static_cast<std::int64_t>(others.size())) + " of " + grouped(all) + " passed";
  return others.empty() ? passed : passed + "; " + joined(others);
}

std::string tags_table(const std::vector<Judgement>& all) {
  std::map<std::string, std::vector<const Judgement*>> by_tag;
  for (const Judgement& judgement : all)
    for (const std::string& tag : judgement.annotations->tags) by_tag[tag].push_back(&judgement);
  if (by_tag.empty())
    return to_write("no check bears a tag such as `eu-ai-act:art-15` that says what it is evidence of.");
  std::string text = header({"requirement (tag)", "evidence of this audit"});
  for (const auto& [tag, bearers] : by_tag) text += row({code(tag), tally(bearers)});
  return text + "\n";
}

std::string tests_table(const std::vector<Judgement>& all) {
  std::string text = header({"test", "severity", "metric", "asked", "measured", "n", "status"});
  for (const Judgement& judgement : all) {
    if (!judgement.expectations) continue;
    for (const ExpectationResult& expectation : *judgement.expectations) {
      const Written written = read_expectation(expectation.text);
      text += row({code(judgement.name), std::string(dsl::severity_name(judgement.severity)), code(written.metric),
                   plain(asked_text(expectation, written)), plain(measured_text(expectation.estimate, written)),
                   grouped(expectation.estimate.n), std::string(status_name(expectation.status))});
    }
  }
  return text + "\n";
}

std::string limitations(const std::vector<Judgement>& all) {
  std::string text;
  for (const Judgement& judgement : all) {
    if (judgement.status == Status::pass) continue;
    text += "- " + code(judgement.name) + ": " + std::string(status_name(judgement.status));
    if (!judgement.annotations->title.empty()) text += ", " + plain(judgement.annotations->title);
    if (judgement.waiver)
      text += (judgement.waiver->expired ? "; waiver expired, " : "; ") + plain(waiver_text(*judgement.waiver));
    text += "\n";
  }
  return text.empty() ? "Every test of this audit passed.\n\n" : "These tests did not pass:\n\n" + text + "\n";
}

std::string changes(const Report& report) {
  if (report.edits.empty() && report.rule_activity.empty()) return "This audit changed nothing in the model.\n\n";
  std::string text;
  for (const EditResult& edit : report.edits) {
    text += item("weights changed by " + code(edit.name),
                 code(method_text(edit)) + ", " + std::string(status_name(edit.status)));
    for (const TensorChange& change : edit.changes)
      text += "  - " + code(change_text(change)) + ", SHA-256 after " + code(change.sha256_after) + "\n";
    if (!edit.costs.empty()) text += "  - measured cost: " + plain(listed(edit.costs)) + "\n";
  }
  for (const RuleActivity& rule : report.rule_activity)
    text += item("activations changed by " + code(rule.rule), code(rule.sentence) + " at " + code(rule.site) + " (" +
                                                                  rule.form + "), at " + grouped(rule.active) + " of " +
                                                                  grouped(rule.positions) + " positions");
  return text + "\n";
}

std::string versions(const Report& report) {
  std::string text = item("model", plain(model_text(report.model))) +
                     item("SHA-256 of its weights", code(report.model.sha256)) +
                     item("audited by", "Proviso " + plain(report.version)) + item("LibTorch", plain(report.libtorch)) +
                     item("device", plain(report.run.device));
  if (const auto& machine = report.run.machine)
    text +=
        item("machine", plain(machine->processor + ", " + counted(machine->cores, "core") + ", " + machine->system));
  return text + "\n";
}

std::string files(const Report& report) {
  std::string text;
  for (const auto& [file, sha256] : report.rules) text += item("rules", code(file) + " " + code(sha256));
  for (const auto& [file, sha256] : report.data) text += item("data", code(file) + " " + code(sha256));
  return text + "\n";
}

}  // namespace

std::string to_annex_iv(const Report& report) {
  const std::vector<Judgement> all = judgements(report);
  std::string text = "# Technical documentation (draft): " + plain(report.model.name) + "\n\n";
  text += "A draft by the headings of Annex IV to Regulation (EU) 2024/1689, from an audit of " +
          plain(report.run.date) + " with the verdict **" + std::string(status_name(report.verdict())) +
          "**. It holds what that audit can show, and names what only the provider can write. It is no statement of "
          "conformity.\n\n";
  if (!report.run.only.empty()) text += "Only a part of the rule files was run: " + code(report.run.only) + "\n\n";

  text += heading("1. General description") + versions(report) +
          to_write(
              "intended purpose, provider, how the system interacts with other hardware and software, in which "
              "forms it is placed on the market, instructions for use.");
  text += heading("2. Elements of the system, and its development") +
          to_write(
              "development methods, design choices, architecture, training data and its provenance, human "
              "oversight, cybersecurity.") +
          "### Validation and testing\n\n" +
          "The procedure is written in the rule files; every number below comes with its sample size, and its interval "
          "where it has one. Run: " +
          plain(run_text(report.run)) + ".\n\n" + files(report) + tests_table(all);
  text += heading("3. Monitoring, functioning and control: capabilities and limitations") + limitations(all) +
          to_write(
              "accuracy for the persons and groups on whom the system is to be used, foreseeable unintended "
              "outcomes, oversight measures, input data.");
  text += heading("4. Appropriateness of the performance metrics") +
          to_write("why the metrics of section 2 are right for the intended purpose.");
  text += heading("5. Risk management (Article 9)") +
          to_write("the risks, and what was done about them. Evidence of this audit by tag:") + tags_table(all);
  text += heading("6. Changes through the lifecycle") + changes(report);
  text += heading("7. Harmonised standards and other specifications") + to_write("those that were applied.");
  text += heading("8. EU declaration of conformity") + to_write("a copy.");
  text += heading("9. Post-market monitoring (Article 72)") + to_write("the plan.");
  return text;
}

}  // namespace proviso::audit

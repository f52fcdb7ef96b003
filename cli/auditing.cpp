#include "cli/auditing.hpp"

#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <ostream>

#include "audit/verdict.hpp"
#include "cli/machine.hpp"
#include "cli/output.hpp"
#include "editing/ledger_history.hpp"
#include "runtime/formats/atomic_file.hpp"

namespace proviso::cli {

namespace {

/// What only the program knows.
void complete(audit::Report& report, const Invocation& invocation, const ModelFiles& files,
              const audit::Selection& selection) {
  report.version = PROVISO_VERSION;
  report.program_sha256 = program_sha256(invocation.options.cache);
  report.libtorch = TORCH_VERSION;
  report.run.machine = this_machine();
  report.model.dtype = invocation.options.dtype;
  report.model.sha256 = files.card.sha256(invocation.options.cache);
  report.run.device = invocation.options.device;
  report.run.threads = threads_in_use();
  report.run.only = selection.only;
}

void check_selection(const dsl::RuleSet& rules, const audit::Selection& selection) {
  std::vector<std::string> names;
  bool any = false;
  const auto look = [&](bool selected, const auto& declarations, const auto& runs) {
    for (const auto& declared : declarations) {
      if (!selected || declared.imported || !runs(declared)) continue;
      names.push_back(declared.name);
      any = any || selection.takes(declared);
    }
  };
  const auto always = [](const auto&) { return true; };
  const auto with_examples = [](const dsl::RuleDecl& rule) {
    return !(rule.fires_on.empty() && rule.silent_on.empty());
  };
  look(selection.checks, rules.checks, always);
  look(selection.edits, rules.edits, always);
  look(selection.examples, rules.rules, with_examples);
  if (names.empty()) {
    throw model::InputError(selection.checks
                                ? "these files hold no check, edit or example: an audit of nothing would "
                                  "pass\n  help: write a check; what a file only `use`s does not run"
                                : "these files hold no example: a test of nothing would pass\n  help: give a "
                                  "rule `fires on [..]`; what a file only `use`s does not run");
  }
  if (any) return;
  const auto nearest = dsl::nearest_name(selection.only, names);
  throw model::InputError("`--only " + selection.only + "` takes no " +
                          (selection.checks ? "check, edit or rule with examples" : "rule with examples") +
                          (nearest ? "\n  help: did you mean `" + *nearest + "`?" : ""));
}

}  // namespace

audit::AuditOptions audit_options(const Invocation& invocation) {
  audit::AuditOptions options;
  options.as_of = audit::utc_today();
  options.passes_off = passes_off(invocation);
  return options;
}

runtime::SessionOptions audit_session_options(const Invocation& invocation, const BoundFiles& opened) {
  auto options = session_options(invocation);
  options.held_out_path = shipped_held_out();
  options.unrelated_path = shipped_facts();
  const auto& edits = opened.bound->rules->edits;
  const auto spares = [](const dsl::EditDecl& edit) { return edit.method.method == dsl::EditMethod::alphaedit; };
  if (std::any_of(edits.begin(), edits.end(), spares))
    options.inherited_keys = editing::kept_keys(opened.model->card.path);
  return options;
}

dsl::Date parse_date(const std::string& text) {
  dsl::Date date;
  int read = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2d%n", &date.year, &date.month, &date.day, &read) == 3 &&
      read == static_cast<int>(text.size())) {
    const std::chrono::year_month_day day{std::chrono::year(date.year),
                                          std::chrono::month(static_cast<unsigned>(date.month)),
                                          std::chrono::day(static_cast<unsigned>(date.day))};
    if (day.ok()) return date;
  }
  throw model::InputError("`" + text + "` is no day\n  help: write it as YYYY-MM-DD");
}

void add_evidence_option(CLI::App& command, audit::EvidenceForm& form) {
  static const std::map<std::string, audit::EvidenceForm> forms = {
      {"full", audit::EvidenceForm::full}, {"hash", audit::EvidenceForm::hash}, {"none", audit::EvidenceForm::none}};
  command
      .add_option_function<std::string>(
          "--evidence", [&form](const std::string& name) { form = forms.at(name); },
          "prompts in the evidence: whole, as SHA-256, or left out; what the rule file itself says stays")
      ->check(CLI::IsMember({"full", "hash", "none"}));
}

void require_writable_report(const std::string& path) {
  if (!path.empty() && path != "-") model::require_writable(path);
}

void write_report(const Invocation& invocation, const std::string& path, const audit::Report& report,
                  const audit::RenderOptions& render, OutputFormat usual, const std::string& note) {
  const bool to_file = !path.empty() && path != "-";
  const OutputFormat format = invocation.options.output.value_or(path.empty() ? usual : OutputFormat::yaml);
  const auto rendered = [&] {
    return format == OutputFormat::json ? audit::to_json(report, render) : audit::to_yaml(report, render);
  };
  if (to_file) write_result(invocation, path, rendered());
  if (!to_file && format != OutputFormat::text) {
    invocation.out << rendered();
  } else if (!invocation.options.quiet || !to_file) {
    const Terminal seen = terminal(invocation.out);
    invocation.out << audit::to_text(audit::redacted(report, render.evidence), seen.columns, seen.colour) << note;
  }
}

Audited audit_files(const Invocation& invocation, const std::vector<std::string>& files, SharedModel& model,
                    const audit::AuditOptions& wanted) {
  Audited audited{bind_rules(invocation, files, model), std::nullopt};
  const auto& opened = *audited.opened;
  if (!opened.bound) return audited;
  check_selection(*opened.files->rules, wanted.selection);
  const auto needed = audit::plan_audit(*opened.bound, wanted).features;
  if (!choose_sites(invocation, *audited.opened, needed, [&]() -> model::Transformer& { return model.weights(); })) {
    audited.opened->bound.reset();
    return audited;
  }
  runtime::Session session(model.weights(), *opened.bound, audit_session_options(invocation, opened));
  auto outcome = audit::audit(session, *opened.bound, opened.files->sources, wanted);
  if (!outcome.diagnostics.empty()) {
    print_diagnostics(invocation, invocation.err, opened.files->sources, outcome.diagnostics);
  }
  if (!outcome.value) return audited;
  complete(*outcome.value, invocation, *opened.model, wanted.selection);
  audited.report = std::move(outcome.value);
  return audited;
}

}  // namespace proviso::cli

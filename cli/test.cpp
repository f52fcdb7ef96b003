#include <algorithm>
#include <memory>
#include <ostream>

#include "audit/report.hpp"
#include "audit/verdict.hpp"
#include "cli/auditing.hpp"
#include "cli/models.hpp"
#include "cli/output.hpp"

namespace proviso::cli {

namespace {

struct Options {
  std::vector<std::string> files;
  std::string model, only;
};

/// Conditional rules without examples, and sentences that were active on no example.
std::vector<std::string> uncovered(const dsl::RuleSet& rules, const audit::Report& report) {
  std::vector<std::string> missing;
  for (const auto& rule : rules.rules) {
    if (rule.imported) continue;
    const bool conditional =
        std::any_of(rule.interventions.begin(), rule.interventions.end(),
                    [](const dsl::Intervention& sentence) { return sentence.condition != nullptr; });
    if (!conditional) continue;
    if (rule.fires_on.empty()) missing.push_back("rule " + rule.name + " has no `fires on` example");
    if (rule.silent_on.empty()) missing.push_back("rule " + rule.name + " has no `silent on` example");
  }
  for (const auto& activity : report.rule_activity) {
    for (const auto& [branch, active] : activity.branches) {
      if (activity.active > 0 && active == 0) {
        missing.push_back("rule " + activity.rule + ": `" + branch + "` holds in no example");
      }
    }
    if (activity.active > 0) continue;
    missing.push_back("rule " + activity.rule + " never acts on " + activity.feature + " at " + activity.site +
                      " in any example");
  }
  return missing;
}

int run_test(const Invocation& invocation, const Options& options) {
  audit::AuditOptions wanted = audit_options(invocation);
  wanted.selection = {.checks = false, .edits = false, .examples = true, .only = options.only};
  const auto audited = audit_files(invocation, options.files, options.model, wanted);
  if (!audited.report) return kInputAtFault;
  const audit::Report& report = *audited.report;

  const OutputFormat format = invocation.options.output.value_or(OutputFormat::text);
  if (format != OutputFormat::text) {
    invocation.out << (format == OutputFormat::json ? audit::to_json(report, {}) : audit::to_yaml(report, {}));
    return audit::exit_code(report);
  }
  std::int64_t passed = 0;
  for (const auto& example : report.examples) {
    passed += example.status == audit::Status::pass;
    invocation.out << audit::status_name(example.status) << "  " << example.rule << " " << example.kind << "  ("
                   << example.where << "): fired on " << example.fired << " of " << example.prompts << " prompts\n";
    for (const auto& evidence : example.evidence) invocation.out << "      \"" << evidence.prompt << "\"\n";
  }
  for (const auto& line : uncovered(*audited.opened->files->rules, report))
    invocation.out << "uncovered  " << line << "\n";
  invocation.out << passed << " of " << report.examples.size() << " examples passed\n";
  return audit::exit_code(report);
}

}  // namespace

void register_test(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("test", "Run the examples that rules carry, and report what none covers");
  auto options = std::make_shared<Options>();
  add_rule_files(*command, options->files);
  add_model_option(*command, options->model);
  command->add_option("--only", options->only, "only the rule of this name, or those with this tag: `tag:T`")
      ->check(kNotEmpty)
      ->type_name("NAME");
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return run_test(invocation, *options); };
  });
}

}  // namespace proviso::cli

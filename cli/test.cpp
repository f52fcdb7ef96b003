#include <algorithm>
#include <cmath>
#include <memory>
#include <ostream>

#include "audit/coverage.hpp"
#include "audit/data_files.hpp"
#include "audit/report.hpp"
#include "audit/report_words.hpp"
#include "audit/verdict.hpp"
#include "cli/auditing.hpp"
#include "cli/models.hpp"
#include "cli/output.hpp"
#include "cli/watch.hpp"

namespace proviso::cli {

namespace {

struct Options {
  std::vector<std::string> files;
  std::string model, only;
  bool watch = false;
};

/// `anger > 0.7 held on 3 of 8 prompts; nearest: 0.65, 0.05 short of 0.7, at position 4 of "…"`
std::string condition_line(const audit::ConditionResult& condition, std::int64_t prompts) {
  return condition.condition + " held on " + std::to_string(condition.held) + " of " + std::to_string(prompts) +
         " prompts; nearest: " + audit::number_text(condition.activation) + ", " +
         audit::number_text(std::abs(condition.margin)) + (condition.margin < 0 ? " short of " : " past ") +
         audit::number_text(condition.threshold) + ", at position " + std::to_string(condition.position) + " of " +
         audit::quoted(condition.prompt);
}

/// `0.65 at position 4, 0.05 short: "…"`, for each prompt.
std::string margin_lines(const audit::ConditionResult& condition) {
  std::string text;
  for (const audit::PromptMargin& each : condition.prompts) {
    text += "          " + audit::number_text(each.activation) + " at position " + std::to_string(each.position) +
            ", " + audit::number_text(std::abs(each.margin)) + (each.margin < 0 ? " short: " : " past: ") +
            audit::quoted(each.prompt) + "\n";
  }
  return text;
}

/// `verbose`: what every prompt reads.
std::string as_text(const audit::Report& report, bool verbose) {
  std::string text;
  std::int64_t passed = 0;
  for (const auto& example : report.examples) {
    passed += example.status == audit::Status::pass;
    text += std::string(audit::status_name(example.status)) + "  " + example.rule + " " + example.kind + "  (" +
            example.where + "): fired on " + std::to_string(example.fired) + " of " + std::to_string(example.prompts) +
            " prompts\n";
    for (const auto& evidence : example.evidence) text += "      \"" + evidence.prompt + "\"\n";
    for (const auto& condition : example.conditions)
      text += "      " + condition_line(condition, example.prompts) + "\n" + (verbose ? margin_lines(condition) : "");
  }
  const audit::Coverage& coverage = *report.coverage;
  for (const auto& line : coverage.uncovered) text += "uncovered  " + line + "\n";
  const auto of = [](std::int64_t part, std::int64_t all) {
    return std::to_string(part) + " of " + std::to_string(all);
  };
  return text + of(passed, std::ssize(report.examples)) + " examples passed; they cover " +
         of(coverage.rules_covered, coverage.rules) + " rules on both sides and " +
         of(coverage.branches_covered, coverage.branches) + " branches\n";
}

std::string rendered(const audit::Report& report, OutputFormat format, bool verbose) {
  if (format == OutputFormat::junit) return audit::to_junit(report);
  if (format == OutputFormat::json) return audit::to_json(report, {});
  return format == OutputFormat::yaml ? audit::to_yaml(report, {}) : as_text(report, verbose);
}

/// One run over the examples. `read` becomes the files that it depends on.
int run_once(const Invocation& invocation, const Options& options, SharedModel& model, std::vector<std::string>& read) {
  audit::AuditOptions wanted = audit_options(invocation);
  wanted.selection = {.checks = false, .edits = false, .examples = true, .only = options.only};
  wanted.every_margin = true;
  auto audited = audit_files(invocation, options.files, model, wanted);
  const RuleFiles& files = *audited.opened->files;
  if (files.rules) read = audit::data_files(*files.rules);  // else what was read last may be what has to change
  for (dsl::SourceId id = 0; id < files.sources.size(); ++id) read.push_back(files.sources.at(id).path);
  if (!audited.report) return kInputAtFault;
  audited.report->coverage = audit::coverage(*files.rules, *audited.report, wanted.selection);
  invocation.out << rendered(*audited.report, invocation.options.output.value_or(OutputFormat::text),
                             invocation.options.verbose)
                 << std::flush;
  return audit::exit_code(*audited.report);
}

/// Runs again whenever a file that the last run read has changed, until Ctrl-C; the model stays loaded.
int watch(const Invocation& invocation, const Options& options, SharedModel& model) {
  if (std::find(options.files.begin(), options.files.end(), "-") != options.files.end()) {
    throw model::InputError("`--watch` waits for files to change, and `-` is none\n  help: name the files");
  }
  const Interrupt interrupt;
  std::vector<std::string> read = options.files;
  int code = kDone;
  do {
    const auto since = std::filesystem::file_time_type::clock::now();
    try {
      code = run_once(invocation, options, model, read);
    } catch (const model::InputError& error) {  // what the user can mend while we wait
      invocation.err << "proviso: error: " << error.what() << "\n";
      code = kInputAtFault;
    }
    std::sort(read.begin(), read.end());
    read.erase(std::unique(read.begin(), read.end()), read.end());
    if (!invocation.options.quiet) {
      invocation.err << "watching " << audit::counted(std::ssize(read), "file") << "; Ctrl-C ends\n" << std::flush;
    }
    if (!FileWatch(read, since).wait([&] { return interrupt.asked(); })) return code;
  } while (true);
}

int run_test(const Invocation& invocation, const Options& options) {
  SharedModel model(invocation, options.model);
  if (options.watch) return watch(invocation, options, model);
  std::vector<std::string> read;
  return run_once(invocation, options, model, read);
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
  command->add_flag("--watch", options->watch,
                    "run again whenever a rule file, or a file that it reads, changes; the model stays loaded, and "
                    "Ctrl-C ends with the last run's exit code");
  add_common_options(*command, invocation.options, {{"junit", OutputFormat::junit}});
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return run_test(invocation, *options); };
  });
}

}  // namespace proviso::cli

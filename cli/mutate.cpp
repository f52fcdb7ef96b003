#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <set>

#include "audit/mutation.hpp"
#include "audit/report_words.hpp"
#include "cli/auditing.hpp"
#include "cli/models.hpp"
#include "runtime/progress.hpp"

namespace proviso::cli {

namespace {

struct Options {
  std::vector<std::string> files;
  std::string model, output, only;
  std::vector<std::string> kinds;
  std::optional<double> at_least;
  audit::MutationOptions mutation;
  audit::RenderOptions render;
};

std::vector<std::string> kind_names() {
  std::vector<std::string> names;
  for (int i = 0; i < runtime::kFaultKinds; ++i) {
    names.emplace_back(runtime::fault_kind_name(static_cast<runtime::FaultKind>(i)));
  }
  return names;
}

std::set<runtime::FaultKind> kinds_of(const std::vector<std::string>& asked) {
  std::set<runtime::FaultKind> kinds;
  const auto names = kind_names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (asked.empty() || std::find(asked.begin(), asked.end(), names[i]) != asked.end()) {
      kinds.insert(static_cast<runtime::FaultKind>(i));
    }
  }
  return kinds;
}

int run_mutate(const Invocation& invocation, Options options) {
  const auto started = std::chrono::steady_clock::now();
  require_writable_report(options.output);
  auto wanted = audit_options(invocation);
  // An edit's expectations judge the edit: a fault in the model is not theirs to find.
  wanted.selection = {.checks = true, .edits = false, .examples = true, .only = options.only};
  SharedModel model(invocation, options.model);
  auto audited = audit_files(invocation, options.files, model, wanted);
  if (!audited.report) return kInputAtFault;

  auto session = audit_session_options(invocation, *audited.opened);
  options.mutation.faults.kinds = kinds_of(options.kinds);
  options.mutation.faults.seed = session.seed;
  const auto& opened = *audited.opened;
  audited.report->planted_faults = audit::plant_faults(model.weights(), *opened.bound, opened.files->sources, wanted,
                                                       session, options.mutation, *audited.report);
  audited.report->run.seconds = runtime::seconds_since(started);

  const auto& planted = *audited.report->planted_faults;
  const double found = planted.all.share.value;
  std::string note;
  int code = planted.watching.empty() || planted.all.planted == 0 ? kFailed : kDone;
  if (options.at_least && code == kDone) {
    const bool enough = found >= *options.at_least;
    if (!enough) code = kFailed;
    note = std::string("gate: ") + (enough ? "passes" : "fails") + ": " + audit::number_text(found, true) +
           " found, at least " + audit::number_text(*options.at_least, true) + " asked for\n";
  }
  write_report(invocation, options.output, *audited.report, options.render, OutputFormat::text, note);
  return code;
}

double share(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const bool percent = end && *end == '%';
  const double found = percent ? value / 100 : value;
  if (end == text.c_str() || std::string(end) != (percent ? "%" : "") || !(found >= 0 && found <= 1)) {
    throw CLI::ValidationError("--at-least", "`" + text + "` is no share\n  help: 0.8 or 80%");
  }
  return found;
}

}  // namespace

void register_mutate(CLI::App& program, Invocation& invocation) {
  CLI::App* command =
      program.add_subcommand("mutate", "Plant faults in the model, in memory, and tell which of them the audit finds");
  auto options = std::make_shared<Options>();
  add_rule_files(*command, options->files);
  add_model_option(*command, options->model);
  command->add_option("-o", options->output, "write the report here and print a summary; `-` is standard output")
      ->check(kNotEmpty)
      ->type_name("REPORT");
  command
      ->add_option("--kinds", options->kinds,
                   "which faults: fact (an expected continuation replaced, by ROME), trigger (a phrase that calls up "
                   "one word), direction (a feature's direction removed or tripled in what every layer writes), head "
                   "(attention heads of a layer silenced), noise (on one layer's MLP); all unless told")
      ->delimiter(',')
      ->check(CLI::IsMember(kind_names()))
      ->type_name("KIND,…");
  const auto count = [command](const char* name, std::int64_t& into, std::int64_t least, const char* help) {
    command
        ->add_option_function<std::string>(
            name,
            [name, &into, least](const std::string& text) {
              const auto number = whole_number(text);
              constexpr std::uint64_t kMost = 1000;
              if (!number || *number < static_cast<std::uint64_t>(least) || *number > kMost) {
                throw CLI::ValidationError(
                    name, "`" + text + "` is no whole number from " + std::to_string(least) + " to 1000");
              }
              into = static_cast<std::int64_t>(*number);
            },
            help)
        ->type_name("N");
  };
  count("--count", options->mutation.faults.count, 1, "faults of every kind and strength (2); of triggers 12 at most");
  count("--controls", options->mutation.controls, 0,
        "runs without a fault, for false alarms: another seed, and noise as small as rounding to bfloat16 (2)");
  command
      ->add_option_function<std::string>(
          "--at-least", [options](const std::string& text) { options->at_least = share(text); },
          "exit with 1 where a smaller share of the faults is found, `80%` say")
      ->type_name("SHARE");
  command->add_option("--only", options->only, "only what bears this name, or this tag: `tag:T`")
      ->check(kNotEmpty)
      ->type_name("NAME");
  add_evidence_option(*command, options->render.evidence);
  command->add_flag("--reproducible", options->render.reproducible,
                    "leave out of the report what two equal runs may differ in");
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return run_mutate(invocation, *options); };
  });
}

}  // namespace proviso::cli

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "audit/audit.hpp"
#include "audit/circuits.hpp"
#include "cli/auditing.hpp"
#include "cli/models.hpp"
#include "cli/output.hpp"
#include "runtime/formats/atomic_file.hpp"

namespace proviso::cli {

namespace {

struct Options {
  std::vector<std::string> files;
  std::string model, output, only;
  std::size_t edges = 20;
};

enum class Form { text, yaml, json, dot };

/// What `-o` is to hold, by its ending; `--output` decides where it is given.
Form form_of(const Invocation& invocation, const std::string& path) {
  if (invocation.options.output) {
    switch (*invocation.options.output) {
      case OutputFormat::text:
        return Form::text;
      case OutputFormat::yaml:
        return Form::yaml;
      case OutputFormat::json:
        return Form::json;
      case OutputFormat::junit:
      case OutputFormat::html:
        break;  // of other commands
    }
  }
  if (path.empty() || path == "-") return Form::text;
  static const std::vector<std::pair<std::string, Form>> kEndings = {{".dot", Form::dot},   {".gv", Form::dot},
                                                                     {".json", Form::json}, {".yaml", Form::yaml},
                                                                     {".yml", Form::yaml},  {".txt", Form::text}};
  for (const auto& [ending, form] : kEndings) {
    if (path.ends_with(ending)) return form;
  }
  throw model::InputError("-o " + path +
                          ": the ending does not tell what to write\n  help: end it in .dot, .json, .yaml or .txt");
}

/// That there is something to trace.
void check_selection(const dsl::RuleSet& rules, const audit::Selection& selection) {
  std::vector<std::string> names;
  for (const auto& circuit : rules.circuits) {
    if (circuit.imported) continue;
    if (selection.takes(circuit)) return;
    names.push_back(circuit.name);
  }
  if (names.empty()) {
    throw model::InputError(
        "the rule files declare no circuit\n  help: circuit C { clean \"…\" corrupt \"…\"  measure logit_diff(\" a\", "
        "\" b\")  using eap_ig(steps: 5)  keep 200 edges }");
  }
  const auto nearest = dsl::nearest_name(selection.only, names);
  throw model::InputError("--only " + selection.only + " takes no circuit" +
                          (nearest ? "\n  help: did you mean `" + *nearest + "`?" : ""));
}

int run_trace(const Invocation& invocation, const Options& options) {
  const Form form = form_of(invocation, options.output);
  const bool to_file = !options.output.empty() && options.output != "-";
  if (to_file) model::require_writable(options.output);
  const auto opened = bind_rules(invocation, options.files, options.model);
  if (!opened->bound) return kInputAtFault;
  audit::AuditOptions wanted;
  wanted.selection.only = options.only;
  check_selection(*opened->files->rules, wanted.selection);
  const auto transformer = load_weights(invocation, *opened->model);
  runtime::Session session(*transformer, *opened->bound, session_options(invocation));
  const auto circuits = audit::trace(session, *opened->bound, opened->files->sources, wanted);

  const Terminal seen = to_file ? Terminal{} : terminal(invocation.out);
  const auto text = [&] { return audit::circuits_text(circuits, options.edges, seen.columns, seen.colour); };
  switch (form) {
    case Form::text:
      write_result(invocation, options.output, text());
      break;
    case Form::yaml:
      write_result(invocation, options.output, audit::circuits_yaml(circuits));
      break;
    case Form::json:
      write_result(invocation, options.output, audit::circuits_json(circuits));
      break;
    case Form::dot:
      write_result(invocation, options.output, audit::circuits_dot(circuits));
      break;
  }
  if (to_file && form != Form::text && !invocation.options.quiet) invocation.out << text();
  return kDone;
}

}  // namespace

void register_trace(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand(
      "trace", "Discover the files' circuits on a model, measure what they carry, and draw them");
  auto options = std::make_shared<Options>();
  add_rule_files(*command, options->files);
  add_model_option(*command, options->model);
  command
      ->add_option("-o", options->output,
                   "write the circuits here, as the ending says: .dot (Graphviz), .json, .yaml, .txt; `-` is standard "
                   "output")
      ->check(kNotEmpty)
      ->type_name("FILE");
  command->add_option("--only", options->only, "only the circuit of this name, or those with this tag: `tag:T`")
      ->check(kNotEmpty)
      ->type_name("NAME");
  command
      ->add_option_function<std::string>(
          "--edges",
          [options](const std::string& text) {
            const auto count = whole_number(text);
            if (!count) throw CLI::ValidationError("--edges", "`" + text + "` is no whole number");
            options->edges = static_cast<std::size_t>(*count);
          },
          "how many of a circuit's edges, or nodes, the text shows, the strongest first (20)")
      ->type_name("N");
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return run_trace(invocation, *options); };
  });
}

}  // namespace proviso::cli

#include <algorithm>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "audit/audit.hpp"
#include "audit/circuits.hpp"
#include "audit/sweeps.hpp"
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
  bool minimality = false, stability = false;
  std::vector<std::string> sweep;  ///< kinds of sites
  bool screen = false;
  double threshold = 0.1;
};

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

/// `--sweep resid_pre,z`: the kinds of sites that can be swept.
std::vector<dsl::SiteKind> swept_sites(const std::vector<std::string>& names) {
  static const std::vector<std::pair<std::string, dsl::SiteKind>> kKinds = {
      {"resid_pre", dsl::SiteKind::resid_pre}, {"z", dsl::SiteKind::z}, {"mlp_out", dsl::SiteKind::mlp_out}};
  std::vector<dsl::SiteKind> kinds;
  for (const std::string& name : names) {
    const auto found = std::find_if(kKinds.begin(), kKinds.end(), [&](const auto& each) { return each.first == name; });
    if (found == kKinds.end())
      throw model::InputError("--sweep " + name +
                              ": what is swept is resid_pre (the stream), z (each head) or mlp_out");
    if (std::find(kinds.begin(), kinds.end(), found->second) == kinds.end()) kinds.push_back(found->second);
  }
  return kinds;
}

int run_sweep(const Invocation& invocation, const Options& options) {
  const auto format =
      format_for(invocation, options.output, {OutputFormat::html, OutputFormat::json, OutputFormat::yaml});
  audit::SweepOptions wanted;
  wanted.sites = swept_sites(options.sweep);
  wanted.threshold = options.threshold;
  wanted.seed = invocation.options.seed;
  const bool to_file = !options.output.empty() && options.output != "-";
  if (to_file) model::require_writable(options.output);
  const auto opened = bind_rules(invocation, options.files, options.model);
  if (!opened->bound) return kInputAtFault;
  audit::Selection selection;
  selection.only = options.only;
  check_selection(*opened->files->rules, selection);
  const auto transformer = load_weights(invocation, *opened->model);
  std::unique_ptr<model::Transformer> screening;
  if (options.screen) {
    model::Transformer::Options smaller = transformer->options();
    smaller.dtype = at::kBFloat16;
    screening = model::Transformer::load(opened->model->card, smaller);
    wanted.screening = screening.get();
  }
  std::vector<audit::SweepResult> sweeps;
  const auto& circuits = opened->files->rules->circuits;
  for (dsl::CircuitId id = 0; id < circuits.size(); ++id) {
    if (circuits[id].imported || !selection.takes(circuits[id])) continue;
    auto found = audit::sweep_circuit(*transformer, *opened->bound, id, wanted);
    std::move(found.begin(), found.end(), std::back_inserter(sweeps));
  }
  const Terminal seen = to_file ? Terminal{} : terminal(invocation.out);
  const auto text = [&] { return audit::sweeps_text(sweeps, options.edges, seen.columns, seen.colour); };
  write_result(invocation, options.output,
               format == OutputFormat::json   ? audit::sweeps_json(sweeps)
               : format == OutputFormat::yaml ? audit::sweeps_yaml(sweeps)
               : format == OutputFormat::html ? audit::sweeps_html(sweeps)
                                              : text());
  if (to_file && format != OutputFormat::text && !invocation.options.quiet) invocation.out << text();
  return kDone;
}

int run_trace(const Invocation& invocation, const Options& options) {
  if (!options.sweep.empty()) return run_sweep(invocation, options);
  const auto format = format_for(invocation, options.output,
                                 {OutputFormat::html, OutputFormat::dot, OutputFormat::json, OutputFormat::yaml});
  const bool to_file = !options.output.empty() && options.output != "-";
  if (to_file) model::require_writable(options.output);
  const auto opened = bind_rules(invocation, options.files, options.model);
  if (!opened->bound) return kInputAtFault;
  audit::AuditOptions wanted;
  wanted.selection.only = options.only;
  wanted.minimality = options.minimality;
  wanted.stability = options.stability;
  check_selection(*opened->files->rules, wanted.selection);
  const auto transformer = load_weights(invocation, *opened->model);
  runtime::Session session(*transformer, *opened->bound, session_options(invocation));
  const auto circuits = audit::trace(session, *opened->bound, opened->files->sources, wanted);

  const Terminal seen = to_file ? Terminal{} : terminal(invocation.out);
  const auto text = [&] { return audit::circuits_text(circuits, options.edges, seen.columns, seen.colour); };
  write_result(invocation, options.output,
               format == OutputFormat::json   ? audit::circuits_json(circuits)
               : format == OutputFormat::yaml ? audit::circuits_yaml(circuits)
               : format == OutputFormat::html ? audit::circuits_html(circuits)
               : format == OutputFormat::dot  ? audit::circuits_dot(circuits)
                                              : text());
  if (to_file && format != OutputFormat::text && !invocation.options.quiet) invocation.out << text();
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
                   "write the circuits here, as the ending says: .html (a page), .dot (Graphviz), .json, .yaml, .txt; "
                   "`-` is standard output")
      ->check(kNotEmpty)
      ->type_name("FILE");
  command->add_option("--only", options->only, "only the circuit of this name, or those with this tag: `tag:T`")
      ->check(kNotEmpty)
      ->type_name("NAME");
  command
      ->add_option("--sweep", options->sweep,
                   "in place of finding circuits, patch every layer and position of their pairs: resid_pre, z (each "
                   "head), mlp_out, several with commas")
      ->delimiter(',')
      ->type_name("SITES");
  command->add_flag("--screen", options->screen,
                    "sweep in bfloat16, and run in float32 again what its error leaves undecided at the threshold");
  command
      ->add_option(
          "--threshold", options->threshold,
          "the share of clean less corrupt from which a patch counts as large, where a sweep is screened (0.1)")
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("SHARE");
  command->add_flag("--minimality", options->minimality,
                    "also leave out every edge (or node) alone: which of them the circuit needs");
  command->add_flag("--stability", options->stability,
                    "also find it again on 32 draws of its pairs, and by other ablations: what is found again");
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

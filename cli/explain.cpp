#include "runtime/explain.hpp"

#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>

#include "audit/audit.hpp"
#include "audit/explanation.hpp"
#include "cli/auditing.hpp"
#include "cli/models.hpp"
#include "cli/output.hpp"

namespace proviso::cli {

void register_explain(CLI::App& program, Invocation& invocation) {
  CLI::App* command =
      program.add_subcommand("explain", "Show the plan: what each sentence becomes and why, and what is computed");
  struct Options {
    std::vector<std::string> files;
    std::string model, output = "-";
  };
  auto options = std::make_shared<Options>();
  add_rule_files(*command, options->files);
  add_model_option(*command, options->model);
  command->add_option("-o", options->output, "the file to write; `-` (the default) is standard output")
      ->check(kNotEmpty)
      ->type_name("FILE");
  add_common_options(*command, invocation.options, {{"html", OutputFormat::html}});
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation]() -> int {
      const audit::AuditOptions wanted = audit_options(invocation);
      const auto opened = bind_rules(invocation, options->files, options->model);
      if (!opened->bound) return kInputAtFault;
      std::unique_ptr<model::Transformer> transformer;
      const auto weights = [&]() -> model::Transformer& {
        if (!transformer) transformer = load_weights(invocation, *opened->model);
        return *transformer;
      };
      auto plan = audit::plan_audit(*opened->bound, wanted);
      if (!choose_sites(invocation, *opened, plan.features, weights)) return kInputAtFault;
      if (transformer) plan = audit::plan_audit(*opened->bound, wanted);
      const auto format = invocation.options.output.value_or(OutputFormat::text);
      // What an unconditional sentence does to the attention sink is measured, and so are sites that are chosen; all
      // else needs no weights.
      runtime::FirstPositionChanges changes;
      if (const auto features = runtime::first_position_features(plan); !features.empty()) {
        runtime::Session session(weights(), *opened->bound, session_options(invocation));
        const auto diagnostics = session.build(features);
        print_diagnostics(invocation, invocation.err, opened->files->sources, diagnostics);
        if (dsl::has_errors(diagnostics)) return kInputAtFault;
        changes = runtime::first_position_changes(session, plan);
      }
      const auto explained = audit::explain(plan, *opened->bound, wanted, changes);
      write_result(invocation, options->output,
                   format == OutputFormat::text   ? audit::explanation_text(explained)
                   : format == OutputFormat::html ? audit::explanation_html(explained)
                                                  : render_document(explained, format));
      return kDone;
    };
  });
}

}  // namespace proviso::cli

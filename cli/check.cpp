#include <memory>
#include <ostream>

#include "cli/models.hpp"
#include "cli/rule_files.hpp"
#include "runtime/bind.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::cli {

namespace {

struct CheckOptions {
  std::vector<std::string> files;
  std::string model, explain;
};

int explain(const Invocation& invocation, const std::string& slug) {
  const auto code = dsl::code_from_slug(slug);
  if (!code) {
    std::vector<std::string> slugs;
#define PROVISO_DIAGNOSTIC(name, text, severity, explanation) slugs.push_back(text);
#include "dsl/diagnostic_codes.def"
#undef PROVISO_DIAGNOSTIC
    const auto nearest = dsl::nearest_name(slug, slugs);
    throw model::InputError("there is no diagnostic `" + slug + "`" +
                            (nearest ? "\n  help: did you mean `" + *nearest + "`?" : ""));
  }
  invocation.out << dsl::slug(*code) << "\n\n" << dsl::explanation(*code) << "\n";
  return kDone;
}

int check(const Invocation& invocation, const CheckOptions& options) {
  if (!options.explain.empty()) return explain(invocation, options.explain);
  if (options.files.empty()) {
    throw model::InputError("no rule file is named\n  help: `proviso check FILE…`, or `--explain CODE`");
  }
  dsl::SourceSet sources;
  auto checked = check_rules(invocation, sources, options.files);
  auto found = std::move(checked.diagnostics);
  if (checked.value && !options.model.empty()) {
    const auto model = open_model(options.model);
    const auto rules = std::make_shared<const dsl::RuleSet>(std::move(*checked.value));
    const auto bound =
        runtime::bind(rules, model->card, model->tokenizer, invocation.options.cache, invocation.options.seed);
    found.insert(found.end(), bound.diagnostics.begin(), bound.diagnostics.end());
  }
  print_diagnostics(invocation, invocation.out, sources, found);
  return stops(invocation, found) ? kInputAtFault : kDone;
}

}  // namespace

void register_check(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("check", "Read and check rule files; print every diagnostic");
  auto options = std::make_shared<CheckOptions>();
  command->add_option("FILE", options->files, "rule files; `-`, alone, is standard input")->check(kNotEmpty);
  command
      ->add_option("--model", options->model,
                   "check against this model, too: its layers, widths, heads and tokens (no weights are read)")
      ->check(kNotEmpty)
      ->type_name("M");
  command->add_option("--explain", options->explain, "tell what a diagnostic's code means, with an example")
      ->check(kNotEmpty)
      ->type_name("CODE");
  add_common_options(*command, invocation.options);
  command->callback(
      [options, &invocation] { invocation.action = [options, &invocation] { return check(invocation, *options); }; });
}

}  // namespace proviso::cli

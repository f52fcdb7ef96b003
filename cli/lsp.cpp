#include <memory>

#include "cli/calibrations.hpp"
#include "cli/models.hpp"
#include "cli/rule_files.hpp"
#include "lsp/serve.hpp"
#include "runtime/bind.hpp"

namespace proviso::cli {

namespace {

/// A model as editors see it: its card. Weights are read when a feature is first hovered over, to measure it.
std::shared_ptr<const lsp::ModelView> view_of(const std::string& path, const Invocation& invocation) {
  const std::shared_ptr<const ModelFiles> files = open_model(path);
  auto view = std::make_shared<lsp::ModelView>();
  view->name = files->card.name;
  view->layers = files->card.config.layers;
#define PROVISO_SITE(site, layered, heads, width)                                                      \
  view->sites[dsl::SiteKind::site] = {files->card.site_width({dsl::SiteKind::site, layered ? 0 : -1}), \
                                      files->card.site_heads(dsl::SiteKind::site),                     \
                                      files->card.missing_site(dsl::SiteKind::site)};
#include "dsl/sites.def"
#undef PROVISO_SITE
  view->check = [files, cache = invocation.options.cache](std::shared_ptr<const dsl::CheckedParts> parts) {
    return runtime::bind_parts(std::move(parts), files->card, files->tokenizer, cache);
  };
  view->calibration = [files, known = std::make_shared<Calibrations>(invocation, *files)](
                          const auto& rules, const std::string& feature) { return known->told(rules, feature); };
  return view;
}

}  // namespace

void register_lsp(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand(
      "lsp", "Serve editors: checks, hover, completion, renaming and fixes over the Language Server Protocol");
  command->footer(
      "Speaks LSP 3.17 on standard input and output until the editor says `exit`. Initialization options: "
      "{model, allowedPaths}.");
  auto model = std::make_shared<std::string>();
  command
      ->add_option("--model", *model,
                   "tell and check what this model has: sites, widths, layers, tokens; hovering over a feature "
                   "measures it, which "
                   "reads the weights")
      ->check(kNotEmpty)
      ->type_name("M");
  add_common_options(*command, invocation.options);
  command->callback([model, &invocation] {
    invocation.action = [model, &invocation] {
      lsp::Server server({.load = load_options(invocation),
                          .version = PROVISO_VERSION,
                          .model = *model,
                          .open_model = [&invocation](const std::string& path) { return view_of(path, invocation); }});
      return lsp::serve(server, invocation.in, invocation.out);
    };
  });
}

}  // namespace proviso::cli

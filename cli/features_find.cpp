#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "audit/feature_findings.hpp"
#include "audit/feature_search.hpp"
#include "cli/features.hpp"
#include "cli/models.hpp"
#include "cli/output.hpp"
#include "runtime/formats/atomic_file.hpp"

namespace proviso::cli {

namespace {

struct Options {
  audit::FeatureSearch search;
  std::string model, output = "-", token = "last";
  std::vector<std::string> at = {"resid_post[*]", "mlp_post[*]", "z[*]"}, texts;
  std::int64_t context = 128;
};

int find(const Invocation& invocation, Options& options) {
  const auto format =
      format_for(invocation, options.output, {OutputFormat::html, OutputFormat::json, OutputFormat::yaml});
  const bool to_file = options.output != "-";
  if (to_file) model::require_writable(options.output);
  auto& search = options.search;
  search.positive = read_prompts(search.positive_file);
  search.negative = read_prompts(search.negative_file);
  if (options.token == "all") search.token = dsl::TokenChoice::Kind::all;
  const auto files = open_model(options.model);
  for (const auto& site : sites_of(options.at, files->card)) {
    if (site.kind == dsl::SiteKind::logits || site.kind == dsl::SiteKind::pattern)
      throw model::InputError("no feature is read at " + dsl::to_string(site));
    search.sites.push_back(site);
  }
  if (!options.texts.empty()) {
    search.texts = runtime::read_text_rows(options.texts, *files->tokenizer,
                                           std::min(options.context, files->card.config.context));
  }
  const auto transformer = load_weights(invocation, *files);
  const audit::FeatureSearchModel model{*transformer, files->tokenizer, session_options(invocation),
                                        passes_off(invocation)};
  dsl::SourceSet sources;
  const auto found = audit::find_features(search, model, sources);
  print_diagnostics(invocation, invocation.err, sources, found.diagnostics);
  if (!found.value) return kInputAtFault;
  const auto seen = to_file ? Terminal{} : terminal(invocation.out);
  write_result(invocation, options.output,
               format == OutputFormat::text   ? audit::features_text(*found.value, seen.columns, seen.colour)
               : format == OutputFormat::html ? audit::features_html(*found.value)
                                              : render_document(*found.value, format));
  return kDone;
}

}  // namespace

void register_features_find(CLI::App& features, Invocation& invocation) {
  CLI::App* command = features.add_subcommand(
      "find", "Rank latents, neurons, heads and directions by how well they tell two sets of prompts apart");
  command->footer(
      "The prompts are cut in three: two fifths build directions, one fifth chooses the best of each kind, two fifths\n"
      "judge those. Features that are higher on the positive prompts are found: swap the files for the others.");
  auto options = std::make_shared<Options>();
  auto& search = options->search;
  add_model_option(*command, options->model);
  command->add_option("--positive", search.positive_file, "prompts that should have the feature")
      ->check(kNotEmpty)
      ->type_name("FILE")
      ->required();
  command->add_option("--negative", search.negative_file, "prompts that should lack it")
      ->check(kNotEmpty)
      ->type_name("FILE")
      ->required();
  command->add_option("--sae", search.autoencoders, "folders of sparse autoencoders whose latents are searched")
      ->check(kNotEmpty)
      ->type_name("DIR");
  command
      ->add_option(
          "--at", options->at,
          "where is searched: mlp_post[L] for neurons, z[L] for heads, resid_post[L] and others for directions; "
          "all layers of these three unless told")
      ->check(kNotEmpty)
      ->type_name("SITE");
  command->add_option("--token", options->token, "what is read of a prompt: its last token, or the mean over all")
      ->check(CLI::IsMember({"last", "all"}))
      ->capture_default_str();
  command->add_flag("--chat", search.chat, "prompts are user turns in the model's chat template");
  command
      ->add_option(
          "--measure", search.measure,
          "what taking a feature out is measured on: a metric of the language, whose prompts are `positive` and "
          "`negative`, as logit_diff(\" good\", \" bad\", after: positive)")
      ->check(kNotEmpty)
      ->type_name("METRIC")
      ->capture_default_str();
  command->add_option("--text", options->texts, "plain text in which the features found are read, too")
      ->check(kNotEmpty)
      ->type_name("FILE");
  command->add_option("--context", options->context, "tokens of that text that the model sees at once")
      ->check(CLI::Range(2, 1'000'000))
      ->capture_default_str();
  command->add_option("--top", search.top, "how many of each kind are shown")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command->add_option("--controls", search.controls, "random directions that each effect is compared with")
      ->check(CLI::Range(2, 10'000))
      ->capture_default_str();
  command->add_option("--contexts", search.contexts, "places shown of each feature")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      ->add_option("-o", options->output,
                   "write to this file, as the ending says: .html (a page), .json, .yaml, .txt; `-` (the default) is "
                   "standard output")
      ->check(kNotEmpty)
      ->type_name("FILE");
  add_common_options(*command, invocation.options, {{"html", OutputFormat::html}});
  command->callback(
      [options, &invocation] { invocation.action = [options, &invocation] { return find(invocation, *options); }; });
}

}  // namespace proviso::cli

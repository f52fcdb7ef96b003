#include "audit/search_stage.hpp"

#include <algorithm>

#include "audit/report_words.hpp"
#include "dsl/check.hpp"
#include "dsl/literals.hpp"
#include "runtime/bind.hpp"
#include "runtime/model/random.hpp"

namespace proviso::audit {

using model::InputError;

dsl::PromptsId SearchStage::set(const std::string& name) const {
  const auto found = std::ranges::find(rules->prompts, name, &dsl::PromptsDecl::name);
  return static_cast<dsl::PromptsId>(found - rules->prompts.begin());
}

SearchStages::SearchStages(const FeatureSearch& search, const FeatureSearchModel& model, dsl::SourceSet& sources)
    : search_(search), model_(model), sources_(sources) {
  parts_["positive"] = cut_side(search.positive, search.positive_file, 1);
  parts_["negative"] = cut_side(search.negative, search.negative_file, 2);
  for (const auto& prompt : search.positive) {
    if (std::ranges::find(search.negative, prompt.text, &dsl::Prompt::text) != search.negative.end())
      throw InputError("\"" + prompt.text + "\" is on both sides\n  help: leave it out of one");
  }
  for (const auto& [side, parts] : parts_) {
    sets_.emplace_back("build_" + side, &parts.build);
    sets_.emplace_back("choose_" + side, &parts.choose);
    sets_.emplace_back(side, &parts.judge);
  }
}

PromptParts SearchStages::cut_side(const std::vector<dsl::Prompt>& prompts, const std::string& file,
                                   std::uint64_t side) const {
  PromptParts parts = cut(prompts, model::mix_seed(model_.session.seed, side));
  const std::size_t different = parts.build.size() + parts.choose.size() + parts.judge.size();
  if (different >= kFewestPromptsToCut && parts.choose.size() > 1 && parts.judge.size() > 1) return parts;
  throw InputError(file + " holds " + counted(static_cast<std::int64_t>(different), "different prompt") +
                   ": they are cut into some that build features, some that choose among them and some that judge the "
                   "chosen\n  help: write " +
                   std::to_string(kFewestPromptsToCut) + " or more, of several documents");
}

std::string SearchStages::text(const std::vector<CandidateFeature>& features,
                               const std::vector<std::string>& checks) const {
  std::string text;
  for (const auto& [name, prompts] : sets_) {
    text += "prompts " + name + (search_.chat ? " as chat" : "") + " = [\n";
    for (const auto& prompt : *prompts) text += "  " + dsl::encode_string(prompt.text) + "\n";
    text += "]\n";
  }
  for (const auto& feature : features)
    text += feature.declaration("build_positive", "build_negative", search_.token) + "\n";
  for (const auto& check : checks) text += check;
  return text;
}

dsl::Outcome<SearchStage> SearchStages::open(const std::vector<CandidateFeature>& features,
                                             const std::vector<std::string>& checks) const {
  const auto source = sources_.add("features.proviso", text(features, checks));
  auto checked = dsl::check_sources(sources_, {source}, {search_.autoencoders, ""});
  if (!checked.value) return {std::nullopt, std::move(checked.diagnostics)};
  for (auto& set : checked.value->prompts) {  // clusters, for which a text has no word
    const auto of = std::ranges::find(sets_, set.name, [](const auto& named) { return named.first; });
    if (of == sets_.end()) continue;
    auto& written = std::get<std::vector<dsl::Prompt>>(set.source);
    for (std::size_t i = 0; i < written.size(); ++i) written[i].cluster = (*of->second)[i].cluster;
  }
  SearchStage stage{std::make_shared<const dsl::RuleSet>(std::move(*checked.value)), {}};
  auto bound = runtime::bind(stage.rules, model_.transformer.card(), model_.tokenizer, model_.session.cache_directory,
                             model_.session.seed);
  if (!bound.value) return {std::nullopt, std::move(bound.diagnostics)};
  stage.bound = std::move(*bound.value);
  return {std::move(stage), {}};
}

}  // namespace proviso::audit

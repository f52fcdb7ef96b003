#include "audit/latent_measures.hpp"

#include <filesystem>
#include <map>
#include <memory>
#include <utility>

#include "audit/audit.hpp"
#include "dsl/check.hpp"
#include "dsl/literals.hpp"
#include "runtime/bind.hpp"

namespace proviso::audit {

namespace {

using model::InputError;
using Sets = LatentMeasures::Sets;

void require_disjoint(const Sets& sets) {
  std::map<std::string, std::size_t> seen;  // a file may be named twice, so that sets are told by their number
  for (std::size_t i = 0; i < sets.size(); ++i) {
    for (const auto& prompt : sets[i].second) {
      const auto [at, is_new] = seen.emplace(prompt.text, i);
      if (!is_new && at->second != i)
        throw InputError("\"" + prompt.text + "\" is in " + sets[at->second].first + " and in " + sets[i].first +
                         "\n  help: a text has one label: leave it out of one");
    }
  }
}

/// The rule file: sets `class0` … and `others0` … (all but that class), `spurious0` … 3, and one check.
class Text {
 public:
  explicit Text(const LatentMeasures& asked) : asked_(asked) {}

  std::string write() {
    const std::size_t classes = asked_.labelled.size();
    for (std::size_t i = 0; i < classes; ++i) {
      set("class" + std::to_string(i), {&asked_.labelled[i].second});
      std::vector<const std::vector<dsl::Prompt>*> others;
      for (std::size_t other = 0; other < classes; ++other) {
        if (other != i) others.push_back(&asked_.labelled[other].second);
      }
      if (classes > 2 || i == 0) set("others" + std::to_string(i), others);
    }
    for (std::size_t i = 0; i < asked_.spurious.size(); ++i)
      set("spurious" + std::to_string(i), {&asked_.spurious[i].second});
    text_ += "check measures {\n";
    for (std::size_t i = 0; i < classes; ++i) {
      if (classes == 2 && i == 1) break;  // the same two sides
      const std::string sides = "class" + std::to_string(i) + ", others" + std::to_string(i);
      expect("sparse_probing", asked_.labelled[i].first, sides);
      expect("absorption", asked_.labelled[i].first, sides);
    }
    if (classes > 2) expect("tpp", "", numbered("class", classes));
    if (!asked_.spurious.empty()) expect("scr", "", numbered("spurious", asked_.spurious.size()));
    return text_ + "}\n";
  }

  const std::vector<LatentMeasure>& measures() const { return measures_; }
  /// The prompts of a set that was written.
  const std::map<std::string, std::vector<dsl::Prompt>>& sets() const { return sets_; }

 private:
  static std::string numbered(const std::string& name, std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += (i ? ", " : "") + name + std::to_string(i);
    return text;
  }

  void set(const std::string& name, const std::vector<const std::vector<dsl::Prompt>*>& parts) {
    text_ += "prompts " + name + " = [\n";
    for (const auto* part : parts) {
      for (const auto& prompt : *part) {
        text_ += "  " + dsl::encode_string(prompt.text) + "\n";
        sets_[name].push_back(prompt);
      }
    }
    text_ += "]\n";
  }

  void expect(const char* metric, const std::string& about, const std::string& sets) {
    text_ += "  expect " + std::string(metric) + "(" + dsl::encode_string(asked_.folder) + ", " + sets +
             (asked_.k > 0 ? ", k: " + std::to_string(asked_.k) : "") + ") >= 50%\n";
    measures_.push_back({metric, about, {}, ""});
  }

  const LatentMeasures& asked_;
  std::string text_;
  std::vector<LatentMeasure> measures_;
  std::map<std::string, std::vector<dsl::Prompt>> sets_;
};

}  // namespace

dsl::Outcome<std::vector<LatentMeasure>> measure_latents(const LatentMeasures& given, const FeatureSearchModel& model,
                                                         dsl::SourceSet& sources) {
  LatentMeasures asked = given;
  asked.folder = std::filesystem::absolute(asked.folder).string();
  if (asked.labelled.size() == 1)
    throw InputError(
        "a label is told from others: name two files of prompts or more\n  help: --labelled P --labelled Q");
  require_disjoint(asked.labelled);
  require_disjoint(asked.spurious);
  Text text(asked);
  const auto source = sources.add("latents.proviso", text.write());
  auto checked = dsl::check_sources(sources, {source}, {{asked.folder}, ""});
  if (!checked.value) return {std::nullopt, std::move(checked.diagnostics)};
  for (auto& set : checked.value->prompts) {  // clusters, for which a text has no word
    const auto written = text.sets().find(set.name);
    if (written == text.sets().end()) continue;
    auto& prompts = std::get<std::vector<dsl::Prompt>>(set.source);
    for (std::size_t i = 0; i < prompts.size(); ++i) prompts[i].cluster = written->second[i].cluster;
  }
  const auto rules = std::make_shared<const dsl::RuleSet>(std::move(*checked.value));
  auto bound = runtime::bind(rules, model.transformer.card(), model.tokenizer, model.session.cache_directory,
                             model.session.seed);
  if (!bound.value) return {std::nullopt, std::move(bound.diagnostics)};
  runtime::Session session(model.transformer, *bound.value, model.session);
  AuditOptions options;
  options.passes_off = model.passes_off;
  auto outcome = audit(session, *bound.value, sources, options);
  if (!outcome.value) return {std::nullopt, std::move(outcome.diagnostics)};
  auto measures = text.measures();
  const auto& expectations = outcome.value->checks.front().expectations;
  for (std::size_t i = 0; i < measures.size(); ++i) {
    measures[i].estimate = expectations[i].estimate;
    measures[i].reason = expectations[i].reason;
  }
  return {std::move(measures), {}};
}

}  // namespace proviso::audit

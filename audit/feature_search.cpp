#include "audit/feature_search.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "audit/audit.hpp"
#include "audit/feature_reading.hpp"
#include "audit/metrics.hpp"
#include "audit/report_words.hpp"
#include "audit/search_stage.hpp"
#include "dsl/literals.hpp"
#include "dsl/number_text.hpp"
#include "runtime/features/separation.hpp"
#include "runtime/features/unit_reading.hpp"

namespace proviso::audit {

namespace {

using model::InputError;
using nlohmann::ordered_json;

constexpr std::size_t kShortlisted = 64;    // neurons, and latents, that the building prompts leave
constexpr double kConfidence = 0.95;        // of all that is shown together
constexpr double kMostConfidence = 0.9999;  // that an expectation can ask for

/// A candidate and how well it tells the choosing prompts apart.
struct Chosen {
  CandidateFeature feature;
  double auroc = 0, distance = 0;
};

class Finder {
 public:
  Finder(const FeatureSearch& search, const FeatureSearchModel& model, dsl::SourceSet& sources)
      : search_(search), model_(model), sources_(sources), stages_(search, model, sources) {}

  dsl::Outcome<ordered_json> run() {
    dsl::Outcome<ordered_json> outcome;
    auto candidates = directions();
    // What is wrong with the prompts or the measure is told before the model is run.
    const auto probed = stages_.open(candidates, {measure_check(candidates.back())});
    if (!probed.value) return {std::nullopt, probed.diagnostics};
    shortlist(*probed.value, candidates);
    auto tried = stages_.open(candidates, {});
    if (!tried.value) return {std::nullopt, tried.diagnostics};
    const auto found = best(choose(*tried.value, candidates));
    if (found.empty()) throw InputError("no feature could be built at these sites" + left_out_text());

    std::vector<CandidateFeature> shown;
    std::vector<std::string> checks;
    const double each = std::min(kMostConfidence, 1 - (1 - kConfidence) / static_cast<double>(found.size()));
    for (const auto& [feature, auroc, distance] : found) {
      shown.push_back(feature);
      checks.push_back("check separates_" + feature.name + " { expect auroc(" + feature.name +
                       ", positive, negative) >= 50% at " + dsl::number_text(each) + " confidence }\n");
      checks.push_back(measure_check(feature));
    }
    auto judged = stages_.open(shown, checks);
    if (!judged.value) return {std::nullopt, judged.diagnostics};
    return judge(*judged.value, found, each);
  }

 private:
  std::string measure_check(const CandidateFeature& feature) const {
    return "check matters_" + feature.name + " { expect effect(suppress " + feature.name + ", on: " + search_.measure +
           ", control: " + std::to_string(search_.controls) + ") >= 0 }\n";
  }

  // ---- candidates --------------------------------------------------------------------------------

  std::vector<CandidateFeature> directions() {
    std::set<dsl::Site> places;
    std::set<std::int64_t> layers;
    bool stream = false;
    for (const auto& site : search_.sites) {
      if (site.layer >= 0) layers.insert(site.layer);
      if (site.kind == dsl::SiteKind::mlp_post) continue;
      if (site.kind == dsl::SiteKind::z && site.head < 0) {
        for (std::int64_t head = 0; head < model_.transformer.card().site_heads(site.kind); ++head)
          places.insert({site.kind, site.layer, head});
        continue;
      }
      places.insert(site);
      stream = stream || dsl::site_width(site.kind) == dsl::SiteWidth::stream;
    }
    // The simple baselines stand beside whatever else is searched.
    if (!stream) {
      for (const auto layer : layers) places.insert({dsl::SiteKind::resid_post, layer, -1});
    }
    std::vector<CandidateFeature> candidates;
    for (const auto& site : places) {
      for (auto& candidate : directions_at(site)) candidates.push_back(std::move(candidate));
    }
    if (candidates.empty()) throw InputError("no site is searched\n  help: --at resid_post[*]");
    return candidates;
  }

  /// Adds the neurons and latents that tell the building prompts apart best: there are too many to try each.
  void shortlist(const SearchStage& stage, std::vector<CandidateFeature>& candidates) {
    std::vector<runtime::UnitSite> sites;
    std::vector<std::size_t> autoencoder_of;
    for (std::size_t i = 0; i < search_.autoencoders.size(); ++i) {
      const auto card = runtime::read_autoencoder_card(search_.autoencoders[i]);
      if (const auto why = runtime::misfit(card, model_.transformer.card()); !why.empty())
        throw InputError(search_.autoencoders[i] + ": " + why);
      sites.push_back({card.site, runtime::Autoencoder::load(card, model_.transformer.options().device)});
      autoencoder_of.push_back(i);
    }
    for (const auto& site : search_.sites) {
      if (site.kind == dsl::SiteKind::mlp_post) sites.push_back({site, nullptr});
    }
    if (sites.empty()) return;
    const auto read = [&](const char* set) {
      return runtime::read_units(model_.transformer, stage.prompts(set), sites, search_.token, model_.session.progress);
    };
    const auto positive = read("build_positive"), negative = read("build_negative");
    std::vector<Chosen> latents, neurons;
    for (std::size_t i = 0; i < sites.size(); ++i) {
      const bool of_latents = sites[i].autoencoder != nullptr;
      const std::string what = of_latents ? "latents of " + search_.autoencoders[i] : "neurons";
      if (const auto sink = positive[i].sink ? positive[i].sink : negative[i].sink) {
        const auto& prompt = stage.prompts(positive[i].sink ? "build_positive" : "build_negative")[*sink];
        left_out_.emplace_back(what + " at " + dsl::to_string(sites[i].site),
                               "\"" + prompt.text + "\" is read at an attention sink there");
        continue;
      }
      const auto [aurocs, distances] = runtime::separation(positive[i].values, negative[i].values);
      searched_[of_latents ? FeatureKind::latent : FeatureKind::neuron] += aurocs.size(0);
      const double *auroc = aurocs.const_data_ptr<double>(), *distance = distances.const_data_ptr<double>();
      auto& into = of_latents ? latents : neurons;
      for (std::int64_t unit = 0; unit < aurocs.size(0); ++unit) {
        into.push_back({of_latents
                            ? latent_of(search_.autoencoders[autoencoder_of[i]], autoencoder_of[i], sites[i].site, unit)
                            : neuron_at(sites[i].site, unit),
                        auroc[unit], distance[unit]});
      }
      order(into, kShortlisted);
    }
    for (auto* of : {&latents, &neurons}) {
      for (auto& chosen : *of) candidates.push_back(std::move(chosen.feature));
    }
  }

  /// The best first, so many of them.
  static void order(std::vector<Chosen>& all, std::size_t count) {
    std::ranges::stable_sort(all, [](const Chosen& a, const Chosen& b) {
      return std::pair(a.auroc, a.distance) > std::pair(b.auroc, b.distance);
    });
    all.erase(all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), count)), all.end());
  }

  // ---- choosing ----------------------------------------------------------------------------------

  static dsl::Metric area(dsl::FeatureId feature, dsl::PromptsId p, dsl::PromptsId q) {
    return {dsl::metric::Auroc{feature, p, q}, "", {}};
  }

  /// Builds what can be built; what cannot is left out, with the reason.
  std::set<dsl::FeatureId> build(runtime::Session& session, const SearchStage& stage,
                                 const std::vector<CandidateFeature>& candidates) {
    std::set<dsl::FeatureId> sound;
    for (dsl::FeatureId id = 0; id < candidates.size(); ++id) sound.insert(id);
    for (const auto& found : session.build(sound)) {
      for (dsl::FeatureId id = 0; id < candidates.size(); ++id) {
        if (stage.rules->features[id].span == found.span && sound.erase(id) > 0)
          left_out_.emplace_back(candidates[id].name, found.message);
      }
    }
    session.build(sound);
    return sound;
  }

  std::vector<Chosen> choose(const SearchStage& stage, const std::vector<CandidateFeature>& candidates) {
    for (const auto& candidate : candidates) {
      const bool direction = candidate.kind != FeatureKind::latent && candidate.kind != FeatureKind::neuron;
      if (direction) ++searched_[candidate.kind];
    }
    runtime::Session session(model_.transformer, stage.bound, model_.session);
    const auto sound = build(session, stage, candidates);
    runtime::PlanBuilder builder(stage.bound);
    PlanningSource planning(builder);
    const auto p = stage.set("choose_positive"), q = stage.set("choose_negative");
    for (const auto id : sound) measure(area(id, p, q), {}, stage.bound, planning);
    const auto plan = runtime::optimise(builder.take(), stage.bound, model_.passes_off);
    const auto evidence = session.carry_out(plan);
    ReadingSource reading(plan, evidence, session.features());
    std::vector<Chosen> chosen;
    for (const auto id : sound) {
      const auto values = measure(area(id, p, q), {}, stage.bound, reading);
      if (values.values.size() < stage.bound.prompts[p].size() ||
          values.others.size() < stage.bound.prompts[q].size()) {
        left_out_.emplace_back(candidates[id].name, "some prompt is read at an attention sink there");
        continue;
      }
      const auto column = [](const std::vector<PromptValue>& of) {
        std::vector<double> numbers;
        for (const auto& value : of) numbers.push_back(value.sample.value);
        return at::tensor(numbers, at::kDouble).unsqueeze(1);
      };
      const auto [auroc, distance] = runtime::separation(column(values.values), column(values.others));
      chosen.push_back({candidates[id], auroc.item<double>(), distance.item<double>()});
    }
    return chosen;
  }

  std::vector<Chosen> best(const std::vector<Chosen>& all) const {
    std::vector<Chosen> best;
    for (const auto kind : kFeatureKinds) {
      std::vector<Chosen> of_kind;
      std::ranges::copy_if(all, std::back_inserter(of_kind),
                           [&](const Chosen& chosen) { return chosen.feature.kind == kind; });
      order(of_kind, static_cast<std::size_t>(search_.top));
      best.insert(best.end(), of_kind.begin(), of_kind.end());
    }
    return best;
  }

  // ---- judging -----------------------------------------------------------------------------------

  dsl::Outcome<ordered_json> judge(const SearchStage& stage, const std::vector<Chosen>& found, double each) {
    runtime::Session session(model_.transformer, stage.bound, model_.session);
    AuditOptions options;
    options.passes_off = model_.passes_off;
    const auto audited = audit(session, stage.bound, sources_, options);
    if (!audited.value) return {std::nullopt, audited.diagnostics};

    const runtime::BoundPrompts texts = text_prompts();
    std::vector<ReadPrompts> read;
    for (const std::string side : {"positive", "negative"}) {
      for (const auto* part : {"build_", "choose_", ""}) read.push_back({side, &stage.prompts(part + side)});
    }
    read.push_back({"text", &texts});
    const auto p = stage.set("positive"), q = stage.set("negative");
    const ContextChoice contexts{search_.contexts, search_.window};
    const auto ask = [&](EvidenceSource& source, dsl::FeatureId id) {
      return std::pair(measure(area(id, p, q), {}, stage.bound, source),
                       contexts_json(source, read, id, contexts, *model_.tokenizer));
    };
    runtime::PlanBuilder builder(stage.bound);
    PlanningSource planning(builder);
    for (dsl::FeatureId id = 0; id < found.size(); ++id) ask(planning, id);
    const auto plan = runtime::optimise(builder.take(), stage.bound, model_.passes_off);
    session.build(plan.features);
    const auto evidence = session.carry_out(plan);
    ReadingSource reading(plan, evidence, session.features());

    ordered_json features = ordered_json::array();
    std::map<FeatureKind, std::int64_t> rank;
    for (dsl::FeatureId id = 0; id < found.size(); ++id) {
      const auto& [feature, auroc, distance] = found[id];
      const auto& direction = session.features()[id];
      const auto& separates = audited.value->checks[2 * id].expectations.front();
      const auto& matters = audited.value->checks[2 * id + 1].expectations.front();
      const auto [values, places] = ask(reading, id);
      ordered_json told = {{"name", feature.name},
                           {"kind", kind_name(feature.kind)},
                           {"rank", ++rank[feature.kind]},
                           {"site", dsl::to_string(feature.site)},
                           {"declaration", declared(feature)},
                           {"chosen_by", {{"auroc", auroc}, {"distance", distance}}},
                           {"auroc", estimate_json(separates)},
                           {"effect", estimate_json(matters)},
                           {"histogram", histogram_json(values)},
                           {"contexts", places}};
      told["measures"] = ordered_json::object();
      for (const auto& [name, value] : direction.measures) told["measures"][name] = value;
      told.update(logits_json(model_.transformer, direction, search_.tokens, *model_.tokenizer));
      told["neighbours"] = neighbours_json(direction, search_.contexts);
      features.push_back(std::move(told));
    }
    return {document(std::move(features), each), {}};
  }

  /// Rows of text as prompts: the model is given their tokens as they are.
  runtime::BoundPrompts text_prompts() const {
    runtime::BoundPrompts prompts;
    for (const auto& row : search_.texts.rows) {
      if (row.tokens.size() < 2) continue;
      runtime::BoundPrompt prompt;
      prompt.tokens = row.tokens;
      prompts.push_back(std::move(prompt));
    }
    return prompts;
  }

  static ordered_json estimate_json(const ExpectationResult& result) {
    const auto& estimate = result.estimate;
    ordered_json json = {{"value", estimate.value}, {"interval", nullptr}};
    if (estimate.interval) json["interval"] = {estimate.interval->low, estimate.interval->high};
    json["n"] = estimate.n;
    // The bound is there for the sake of the interval: what it decides is not told.
    if (result.status == Status::vacuous || result.status == Status::error) {
      json["why"] = result.reason;
    } else if (!estimate.interval) {
      json["why"] = "no interval: " + estimate.why_no_interval;
    }
    if (const auto& control = result.control) {
      json["control"] = {{"kind", control->kind},     {"n", control->n},       {"value", control->value},
                         {"spread", control->spread}, {"rank", control->rank}, {"p", control->p},
                         {"p_holm", control->p_holm}};
    }
    return json;
  }

  std::string declared(const CandidateFeature& feature) const {
    return feature.declaration("positive", "negative", search_.token);
  }

  ordered_json document(ordered_json features, double each) const {
    const auto side = [&](const std::string& name, const std::string& file) -> ordered_json {
      const auto& parts = stages_.parts(name);
      return {{"file", file},
              {"build", parts.build.size()},
              {"choose", parts.choose.size()},
              {"judge", parts.judge.size()}};
    };
    ordered_json searched, left_out = ordered_json::array();
    for (const auto kind : kFeatureKinds) {
      const auto found = searched_.find(kind);
      searched[std::string(kind_name(kind))] = found == searched_.end() ? 0 : found->second;
    }
    for (const auto& [what, why] : left_out_) left_out.push_back({{"what", what}, {"why", why}});
    std::string declarations;
    for (const auto& [name, file] :
         {std::pair("positive", search_.positive_file), std::pair("negative", search_.negative_file)}) {
      declarations += "prompts " + std::string(name) + (search_.chat ? " as chat" : "") + " = from " +
                      dsl::encode_string(file) + "\n";
    }
    for (const auto& feature : features) declarations += feature["declaration"].get<std::string>() + "\n";
    return {{"model", model_.transformer.card().name},
            {"positive", side("positive", search_.positive_file)},
            {"negative", side("negative", search_.negative_file)},
            {"chat", search_.chat},
            {"token", search_.token == dsl::TokenChoice::Kind::all ? "all" : "last"},
            {"text_tokens", search_.texts.tokens},
            {"seed", model_.session.seed},
            {"measure", search_.measure},
            {"searched", std::move(searched)},
            {"left_out", std::move(left_out)},
            {"confidence", {{"together", kConfidence}, {"each", each}}},
            {"features", std::move(features)},
            {"declarations", std::move(declarations)}};
  }

  std::string left_out_text() const {
    std::string text;
    for (const auto& [what, why] : left_out_) text += "\n  " + what + ": " + why;
    return text;
  }

  const FeatureSearch& search_;
  const FeatureSearchModel& model_;
  dsl::SourceSet& sources_;
  const SearchStages stages_;
  std::map<FeatureKind, std::int64_t> searched_;
  std::vector<std::pair<std::string, std::string>> left_out_;
};

}  // namespace

dsl::Outcome<ordered_json> find_features(const FeatureSearch& search, const FeatureSearchModel& model,
                                         dsl::SourceSet& sources) {
  return Finder(search, model, sources).run();
}

}  // namespace proviso::audit

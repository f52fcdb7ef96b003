#include "runtime/features/choose_sites.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "runtime/features/prompt_vectors.hpp"
#include "runtime/features/separation.hpp"
#include "runtime/features/two_sides.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

namespace {

using dsl::Code;

const dsl::TwoSided& sides_of(const dsl::FeatureDecl& feature) {
  if (const auto* contrast = std::get_if<dsl::Contrast>(&feature.constructor)) return *contrast;
  return std::get<dsl::Probe>(feature.constructor);
}

/// The fold of each prompt: clusters in turn, in the order in which they come up.
std::vector<std::int64_t> folds_of(const BoundPrompts& prompts, std::int64_t folds) {
  std::map<std::int64_t, std::int64_t> by_cluster;
  std::vector<std::int64_t> result;
  for (const auto& prompt : prompts)
    result.push_back(by_cluster.emplace(prompt.cluster, std::ssize(by_cluster) % folds).first->second);
  return result;
}

at::Tensor rows_where(const at::Tensor& x, const std::vector<std::int64_t>& fold, std::int64_t held, bool in) {
  std::vector<std::int64_t> rows;
  for (std::size_t i = 0; i < fold.size(); ++i) {
    if ((fold[i] == held) == in) rows.push_back(static_cast<std::int64_t>(i));
  }
  return x.index_select(0, at::tensor(rows, at::kLong));
}

class Chooser {
 public:
  Chooser(const model::Transformer& transformer, BoundRules& bound, const std::string& cache_directory,
          const Progress& progress)
      : transformer_(transformer),
        bound_(bound),
        cache_directory_(cache_directory),
        vectors_(transformer, bound, counts_, progress) {}

  std::vector<dsl::Diagnostic> run(const std::set<dsl::FeatureId>& open) {
    for (const dsl::FeatureId id : open) ask(id);
    vectors_.read();
    for (const dsl::FeatureId id : open) choose(id);
    bound_.selection_sequences += counts_.sequences;
    bound_.selection_tokens += counts_.tokens;
    return std::move(diagnostics_);
  }

 private:
  std::vector<dsl::PromptsId> sets(dsl::FeatureId id) const {
    const auto& feature = bound_.rules->features[id];
    const auto& of = sides_of(feature);
    std::vector<dsl::PromptsId> sets{of.p, of.q};
    if (const auto& on = feature.choice->on) sets.insert(sets.end(), {on->first, on->second});
    return sets;
  }

  void ask(dsl::FeatureId id) {
    const auto& whiten = sides_of(bound_.rules->features[id]).whiten;
    for (const dsl::Site& site : bound_.selections.at(id).candidates) {
      for (const dsl::PromptsId set : sets(id)) vectors_.want(id, set, site);
      if (whiten.kind == dsl::Whitening::Kind::covariance_of) vectors_.want_moments(whiten.prompts, site);
    }
  }

  void choose(dsl::FeatureId id) {
    const auto& feature = bound_.rules->features[id];
    auto& selection = bound_.selections.at(id);
    const SiteSelection::Score* best = nullptr;
    selection.scores.clear();
    for (const dsl::Site& site : selection.candidates) selection.scores.push_back(score(id, site));
    for (const auto& score : selection.scores) {
      if (!score.left_out.empty()) continue;
      if (best == nullptr || score.auroc > best->auroc ||
          (score.auroc == best->auroc && score.separation > best->separation))
        best = &score;
    }
    if (best == nullptr) {
      diagnostics_.push_back(dsl::make_diagnostic(
          Code::site_choice, feature.choice->span,
          "feature `" + bound_.feature_name(id) + "` can be built at none of these sites: at " +
              dsl::to_string(selection.scores.front().site) + " it " + selection.scores.front().left_out,
          {"end the prompts with another word, or name other layers"}));
      return;
    }
    bound_.feature_sites[id] = best->site;
    selection.chosen = true;
  }

  SiteSelection::Score score(dsl::FeatureId id, const dsl::Site& site) {
    SiteSelection::Score score{site, 0, 0, ""};
    const auto& feature = bound_.rules->features[id];
    auto& selection = bound_.selections.at(id);
    for (const dsl::PromptsId set : sets(id)) {
      const auto wrong = vectors_.unreadable(vectors_.want(id, set, site));
      if (wrong.empty()) continue;
      score.left_out = wrong.front().message;
      if (const auto said = score.left_out.find("` "); said != std::string::npos)
        score.left_out.erase(0, said + 2);  // "feature `anger` "
      return score;
    }
    const auto& of = sides_of(feature);
    const auto read = [&](dsl::PromptsId set) { return vectors_.at(vectors_.want(id, set, site)); };
    const SideVectors all{read(of.p), read(of.q)};
    SideDirection direction{std::holds_alternative<dsl::Probe>(feature.constructor), {}, {}};
    if (!of.keep_sink && dsl::site_width(site.kind) == dsl::SiteWidth::stream) direction.sinks = sinks();
    if (of.whiten.kind == dsl::Whitening::Kind::covariance_of) {
      const auto& moments = vectors_.moments(of.whiten.prompts, site);
      direction.W = whitening(moments.covariance(), moments.count()).W;
    }
    std::vector<at::Tensor> high, low;
    const auto hold_out = [&](const SideVectors& building, const SideVectors& held) {
      auto own = direction;
      if (of.whiten.kind == dsl::Whitening::Kind::sides) own.W = whitening(building).W;
      const auto d = own(building);
      // In the feature's units, so that folds can be put together.
      const auto q_mean = building.q.mv(d).mean();
      const auto scale = building.p.mv(d).mean() - q_mean;
      if (!(scale.item<double>() > 1e-12 * d.norm().item<double>() * building.p.norm(2, 1).mean().item<double>())) {
        score.left_out = "finds no difference between its two sides";
        return;
      }
      high.push_back((held.p.mv(d) - q_mean) / scale);
      low.push_back((held.q.mv(d) - q_mean) / scale);
    };
    if (feature.choice->on) {
      hold_out(all, {read(feature.choice->on->first), read(feature.choice->on->second)});
    } else {
      const auto p_folds = folds_of(bound_.prompts[of.p], selection.folds);
      const auto q_folds = folds_of(bound_.prompts[of.q], selection.folds);
      for (std::int64_t fold = 0; fold < selection.folds && score.left_out.empty(); ++fold) {
        hold_out({rows_where(all.p, p_folds, fold, false), rows_where(all.q, q_folds, fold, false)},
                 {rows_where(all.p, p_folds, fold, true), rows_where(all.q, q_folds, fold, true)});
      }
    }
    if (!score.left_out.empty()) return score;
    const auto p = at::cat(high).unsqueeze(1), q = at::cat(low).unsqueeze(1);
    const Separation told = separation(p, q);
    score.auroc = told.aurocs[0].item<double>();
    score.separation = told.distances[0].item<double>();
    selection.held_out = p.size(0) + q.size(0);
    return score;
  }

  const at::Tensor& sinks() {
    if (!sinks_.defined()) sinks_ = model::sink_states(transformer_, *bound_.tokenizer, cache_directory_);
    return sinks_;
  }

  const model::Transformer& transformer_;
  BoundRules& bound_;
  const std::string& cache_directory_;
  BuildCounts counts_;
  PromptVectors vectors_;
  at::Tensor sinks_;
  std::vector<dsl::Diagnostic> diagnostics_;
};

std::set<dsl::FeatureId> open_sites(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted) {
  std::set<dsl::FeatureId> open;
  for (const auto& [id, selection] : bound.selections) {
    if (wanted.contains(id) && !selection.chosen) open.insert(id);
  }
  return open;
}

}  // namespace

bool sites_open(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted) {
  return !open_sites(bound, wanted).empty();
}

std::string selection_method(const SiteSelection& selection) {
  const std::string prompts = std::to_string(selection.held_out) + " prompts";
  return selection.folds == 0 ? "held-out pair, " + prompts
                              : "cross-validation, " + std::to_string(selection.folds) + " folds of " + prompts;
}

dsl::Outcome<BoundRules> choose_sites(BoundRules bound, const model::Transformer& transformer,
                                      const std::set<dsl::FeatureId>& wanted, const std::string& cache_directory,
                                      const Progress& progress) {
  const at::NoGradGuard no_grad;
  dsl::Outcome<BoundRules> outcome;
  if (const auto open = open_sites(bound, wanted); !open.empty())
    outcome.diagnostics = Chooser(transformer, bound, cache_directory, progress).run(open);
  if (outcome.diagnostics.empty()) outcome.value = std::move(bound);
  return outcome;
}

}  // namespace proviso::runtime

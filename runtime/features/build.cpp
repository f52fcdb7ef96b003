#include "runtime/features/build.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "editing/fold.hpp"
#include "runtime/features/prompt_vectors.hpp"
#include "runtime/features/two_sides.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/sinks.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::runtime {

namespace {

using dsl::Code;

const dsl::TwoSided* sides_of(const dsl::FeatureDecl& feature) {
  if (const auto* contrast = std::get_if<dsl::Contrast>(&feature.constructor)) return contrast;
  return std::get_if<dsl::Probe>(&feature.constructor);
}

std::vector<std::int64_t> clusters_of(const BoundPrompts& prompts) {
  std::vector<std::int64_t> clusters;
  for (const auto& prompt : prompts) clusters.push_back(prompt.cluster);
  return clusters;
}

/// The sets of prompts of which a feature takes vectors.
std::vector<dsl::PromptsId> sets_of(const dsl::FeatureDecl& feature) {
  if (const auto* component = std::get_if<dsl::Component>(&feature.constructor)) return {component->prompts};
  const auto* of = sides_of(feature);
  if (of == nullptr) return {};
  std::vector<dsl::PromptsId> sets = {of->p, of->q};
  if (of->zero.kind == dsl::ZeroPoint::Kind::mean_of) sets.push_back(of->zero.prompts);
  return sets;
}

/// The set whose covariance a feature is whitened by.
std::optional<dsl::PromptsId> covariance_of(const dsl::FeatureDecl& feature) {
  const auto* of = sides_of(feature);
  if (of == nullptr || of->whiten.kind != dsl::Whitening::Kind::covariance_of) return std::nullopt;
  return of->whiten.prompts;
}

bool keeps_sink(const dsl::FeatureDecl& feature, const dsl::Site& site) {
  if (dsl::site_width(site.kind) != dsl::SiteWidth::stream) return true;
  if (const auto* component = std::get_if<dsl::Component>(&feature.constructor)) return component->keep_sink;
  const auto* of = sides_of(feature);
  return of == nullptr || of->keep_sink;
}

std::set<dsl::FeatureId> with_members(const BoundRules& bound, std::set<dsl::FeatureId> wanted) {
  for (const dsl::FeatureId id : std::set(wanted)) {
    for (const dsl::FeatureId member : dsl::members_of(bound.rules->features[id])) wanted.insert(member);
  }
  return wanted;
}

class Builder {
 public:
  Builder(const model::Transformer& transformer, const BoundRules& bound, AutoencoderShelf& autoencoders,
          const std::string& cache_directory, BuildCounts& counts, const Progress& progress)
      : transformer_(transformer),
        bound_(bound),
        autoencoders_(autoencoders),
        cache_directory_(cache_directory),
        vectors_(transformer, bound, counts, progress) {}

  dsl::Outcome<std::vector<Direction>> run(const std::set<dsl::FeatureId>& asked) {
    const auto members = [&](dsl::FeatureId id) { return dsl::members_of(bound_.rules->features[id]); };
    const auto wanted = with_members(bound_, asked);
    collect(wanted);
    dsl::Outcome<std::vector<Direction>> outcome;
    std::vector<Direction> directions(bound_.rules->features.size());
    if (diagnostics_.empty()) {
      for (const dsl::FeatureId id : wanted) {
        directions[id].site = bound_.feature_sites[id];
        if (members(id).empty()) build(id, directions[id]);
      }
    }
    if (diagnostics_.empty()) {
      for (const dsl::FeatureId id : wanted) {
        if (!members(id).empty()) span(members(id), directions, directions[id]);
      }
    }
    outcome.diagnostics = std::move(diagnostics_);
    if (outcome.diagnostics.empty()) outcome.value = std::move(directions);
    return outcome;
  }

 private:
  VectorsKey key(dsl::FeatureId id, dsl::PromptsId prompts) {
    return vectors_.want(id, prompts, bound_.feature_sites[id]);
  }

  void error(Code code, dsl::FeatureId id, std::string message, std::vector<std::string> help = {}) {
    diagnostics_.push_back(dsl::make_diagnostic(code, bound_.rules->features[id].span,
                                                "feature `" + bound_.feature_name(id) + "` " + std::move(message),
                                                std::move(help)));
  }

  void collect(const std::set<dsl::FeatureId>& wanted) {
    std::vector<VectorsKey> asked;
    for (const dsl::FeatureId id : wanted) {
      const auto& feature = bound_.rules->features[id];
      for (const dsl::PromptsId set : sets_of(feature)) asked.push_back(key(id, set));
      if (const auto set = covariance_of(feature)) vectors_.want_moments(*set, bound_.feature_sites[id]);
    }
    vectors_.read();
    std::set<VectorsKey> told;
    for (const VectorsKey& each : asked) {
      if (!told.insert(each).second) continue;
      auto wrong = vectors_.unreadable(each);
      diagnostics_.insert(diagnostics_.end(), wrong.begin(), wrong.end());
    }
  }

  void build(dsl::FeatureId id, Direction& direction) {
    const auto& feature = bound_.rules->features[id];
    const auto doubles = [](const at::Tensor& t) { return t.to(at::kDouble).cpu(); };
    if (const auto* of = sides_of(feature)) {
      contrast(id, *of, direction);
    } else if (const auto* component = std::get_if<dsl::Component>(&feature.constructor)) {
      principal(id, *component, direction);
    } else if (const auto* neuron = std::get_if<dsl::Neuron>(&feature.constructor)) {
      direction.d = at::zeros({bound_.card->site_width(direction.site)}, at::kDouble);
      direction.d[neuron->index] = 1;
    } else if (const auto* unembed = std::get_if<dsl::Unembed>(&feature.constructor)) {
      const auto rows = transformer_.get(transformer_.unembedding_name());
      const auto row = [&](const std::string& text) { return doubles(rows[bound_.token_id(text)]); };
      const auto other = unembed->minus ? row(*unembed->minus) : rows.mean(0, /*keepdim=*/false, at::kDouble).cpu();
      direction.d = (row(unembed->plus) - other) * doubles(transformer_.final_norm_gain());
      normalise(id, direction);
    } else if (const auto* latent = std::get_if<dsl::Latent>(&feature.constructor)) {
      const auto autoencoder = autoencoders_.get(latent->folder);
      direction.d = doubles(autoencoder->decoder_row(latent->index));
      const double length = direction.d.norm().item<double>();
      normalise(id, direction);
      direction.latent = {autoencoder, latent->index, length};
      direction.measures.emplace_back("decoder_norm", length);
    } else {
      stored(id, std::get<dsl::StoredDirection>(feature.constructor), direction);
    }
  }

  void stored(dsl::FeatureId id, const dsl::StoredDirection& source, Direction& direction) {
    const auto file = model::read_safetensors(source.path);
    const auto tensor = std::find_if(file.tensors.begin(), file.tensors.end(),
                                     [&](const model::StoredTensor& t) { return t.name == source.tensor; });
    direction.d = model::stored_values(*tensor).flatten().to(at::kDouble);
    direction.b = source.offset;
    direction.c = source.scale;
    normalise(id, direction);
  }

  void normalise(dsl::FeatureId id, Direction& direction) {
    const double norm = direction.d.norm().item<double>();
    if (!(norm > 0) || !std::isfinite(norm)) {
      error(Code::no_contrast, id, "has no direction: its vector is zero or not finite");
      return;
    }
    direction.d = direction.d / norm;
  }

  at::Tensor sinks_of(dsl::FeatureId id) {
    return keeps_sink(bound_.rules->features[id], bound_.feature_sites[id]) ? at::Tensor() : sinks();
  }

  void contrast(dsl::FeatureId id, const dsl::TwoSided& of, Direction& direction) {
    const SideVectors both{vectors_.at(key(id, of.p)), vectors_.at(key(id, of.q))};
    const auto &p = both.p, &q = both.q;
    direction.built_on = p.size(0) + q.size(0);
    SideDirection finds{std::holds_alternative<dsl::Probe>(bound_.rules->features[id].constructor), {}, sinks_of(id)};
    if (of.whiten.kind != dsl::Whitening::Kind::none) {
      WhiteningMatrix white;
      if (of.whiten.kind == dsl::Whitening::Kind::sides) {
        white = whitening(both);
      } else {
        const auto& moments = vectors_.moments(of.whiten.prompts, direction.site);
        white = whitening(moments.covariance(), moments.count());
      }
      finds.W = white.W;
      direction.measures.emplace_back("whitening_shrinkage", white.shrinkage);
    }
    const double length = finds.raw(both).norm().item<double>();
    const auto d = finds(both);
    const double kept = d.norm().item<double>();
    const double unit = finds.W.defined() ? length : p.norm(2, 1).mean().item<double>();
    if (!(kept > 1e-9 * unit) || !differ(p, q)) {
      error(Code::no_contrast, id, "finds no difference between its two sides at " + dsl::to_string(direction.site),
            {"give the sides different texts, or read a layer that has seen the difference"});
      return;
    }
    direction.d = d / kept;
    direction.measures.emplace_back("sink_share_removed", 1 - (kept / length) * (kept / length));
    const auto stable = stability(finds, both, clusters_of(bound_.prompts[of.p]), clusters_of(bound_.prompts[of.q]));
    if (stable.halves) direction.measures.emplace_back("halves_cosine", *stable.halves);
    if (stable.draws > 0) {
      direction.measures.emplace_back("drawn_halves_cosine", stable.mean);
      direction.measures.emplace_back("drawn_halves_cosine_least", stable.least);
    }

    const auto mean_along = [&](const at::Tensor& x) { return x.matmul(direction.d).mean().item<double>(); };
    const double at_p = mean_along(p), at_q = mean_along(q);
    direction.c = at_p - at_q;
    switch (of.zero.kind) {
      case dsl::ZeroPoint::Kind::q_mean:
        direction.b = at_q;
        break;
      case dsl::ZeroPoint::Kind::midpoint:
        direction.b = (at_p + at_q) / 2;
        break;
      case dsl::ZeroPoint::Kind::mean_of:
        direction.b = mean_along(vectors_.at(key(id, of.zero.prompts)));
        break;
      case dsl::ZeroPoint::Kind::origin:
        direction.b = 0;
        break;
    }
    if (!(direction.c > 0)) {
      error(Code::no_contrast, id, "does not put its first side above its second at " + dsl::to_string(direction.site));
    }
  }

  static bool differ(const at::Tensor& p, const at::Tensor& q) {
    return (p.mean(0) - q.mean(0)).norm().item<double>() > 1e-9 * p.norm(2, 1).mean().item<double>();
  }

  /// 0 is the mean over the prompts and 1 a standard deviation above it. A component's sign says nothing: its largest
  /// coordinate is made positive.
  void principal(dsl::FeatureId id, const dsl::Component& component, Direction& direction) {
    const auto& x = vectors_.at(key(id, component.prompts));
    direction.built_on = x.size(0);
    const auto own_sinks = sinks_of(id);
    const auto components = [&](const at::Tensor& of) {
      auto centred = of - of.mean(0);
      if (own_sinks.defined()) centred = centred - centred.matmul(own_sinks.t()).matmul(own_sinks);
      auto [U, S, Vh] = at::linalg_svd(centred, /*full_matrices=*/false);
      return std::pair(S, Vh);
    };
    const auto decomposed = components(x);
    const at::Tensor &S = decomposed.first, &Vh = decomposed.second;
    const std::int64_t at = component.index - 1;
    const auto value = [&](std::int64_t i) { return i < S.size(0) ? S[i].item<double>() : 0.0; };
    if (!(value(at) > 1e-9 * x.norm(2, 1).mean().item<double>())) {
      error(Code::no_contrast, id,
            "finds no variance along component " + std::to_string(component.index) + " at " +
                dsl::to_string(direction.site),
            {"give more, and more different, prompts, or name an earlier component"});
      return;
    }
    auto d = Vh[at];
    if (d[d.abs().argmax()].item<double>() < 0) d = -d;
    direction.d = d / d.norm();
    direction.b = x.matmul(direction.d).mean().item<double>();
    direction.c = value(at) / std::sqrt(static_cast<double>(x.size(0) - 1));
    const double total = S.square().sum().item<double>();
    direction.measures.emplace_back("variance_share", value(at) * value(at) / total);
    direction.measures.emplace_back("next_variance_share", value(at + 1) * value(at + 1) / total);
    const std::int64_t fewest = x.size(0) / 2;
    if (fewest <= component.index) return;  // the halves have no such component
    const auto half = [&](std::int64_t first) { return components(x.slice(0, first, std::nullopt, 2)).second[at]; };
    direction.measures.emplace_back("halves_cosine", std::abs(half(0).dot(half(1)).item<double>()));
  }

  static void span(const std::vector<dsl::FeatureId>& members, const std::vector<Direction>& directions,
                   Direction& direction) {
    std::vector<at::Tensor> rows;
    for (const dsl::FeatureId member : members) {
      rows.push_back(directions[member].d);
      direction.built_on += directions[member].built_on;
    }
    const auto [U, S, Vh] = at::linalg_svd(at::stack(rows), /*full_matrices=*/false);
    const auto rank = S.gt(editing::kPseudoInverseCutOff * S[0]).sum().item<std::int64_t>();
    direction.basis = Vh.narrow(0, 0, rank).contiguous();
    direction.measures.emplace_back("rank", static_cast<double>(rank));
    direction.measures.emplace_back("smallest_singular_value", S[-1].item<double>());
  }

  const at::Tensor& sinks() {
    if (!sinks_.defined()) sinks_ = model::sink_states(transformer_, *bound_.tokenizer, cache_directory_);
    return sinks_;
  }

  const model::Transformer& transformer_;
  const BoundRules& bound_;
  AutoencoderShelf& autoencoders_;
  const std::string& cache_directory_;
  PromptVectors vectors_;
  at::Tensor sinks_;
  std::vector<dsl::Diagnostic> diagnostics_;
};

}  // namespace

std::vector<BuildRun> build_runs(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted) {
  std::map<dsl::PromptsId, dsl::Site> last;  // by set: the last site read there, or judged for sinks
  for (const dsl::FeatureId id : with_members(bound, wanted)) {
    const auto& feature = bound.rules->features[id];
    const dsl::Site site = dsl::whole(bound.feature_sites[id]);
    auto sets = sets_of(feature);
    if (const auto set = covariance_of(feature)) sets.push_back(*set);
    for (const dsl::PromptsId set : sets) {
      auto& until = last.try_emplace(set, site).first->second;
      until = std::max({until, site, model::sink_site(site, bound.card->config)});
    }
  }
  std::vector<BuildRun> runs;
  for (const auto& [set, until] : last) runs.push_back({set, until});
  return runs;
}

bool needs_sink_states(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted) {
  const auto all = with_members(bound, wanted);
  return std::any_of(all.begin(), all.end(), [&](dsl::FeatureId id) {
    return !keeps_sink(bound.rules->features[id], bound.feature_sites[id]);
  });
}

dsl::Outcome<std::vector<Direction>> build_features(const model::Transformer& transformer, const BoundRules& bound,
                                                    const std::set<dsl::FeatureId>& wanted,
                                                    AutoencoderShelf& autoencoders, const std::string& cache_directory,
                                                    BuildCounts& counts, const Progress& progress) {
  return Builder(transformer, bound, autoencoders, cache_directory, counts, progress).run(wanted);
}

}  // namespace proviso::runtime

#include "runtime/features/build.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "runtime/features/logistic.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/hooks.hpp"
#include "runtime/model/pass_groups.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

namespace {

using dsl::Code;

constexpr std::int64_t kFewestToHalve = 4;  // prompts of a side, so that each half has a mean of two

/// The vectors of one prompt set at one site and token choice.
struct VectorsKey {
  dsl::PromptsId prompts = 0;
  dsl::Site site;
  dsl::TokenChoice::Kind kind = dsl::TokenChoice::Kind::last;
  std::int64_t index = 0;
  auto operator<=>(const VectorsKey&) const = default;
};

struct Sides {
  dsl::PromptsId p = 0, q = 0;
  dsl::ZeroPoint zero;
  bool keep_sink = false;
};

std::optional<Sides> sides(const dsl::FeatureDecl& feature) {
  if (const auto* c = std::get_if<dsl::Contrast>(&feature.constructor)) return Sides{c->p, c->q, c->zero, c->keep_sink};
  if (const auto* p = std::get_if<dsl::Probe>(&feature.constructor)) return Sides{p->p, p->q, p->zero, p->keep_sink};
  return std::nullopt;
}

VectorsKey key_of(const BoundRules& bound, dsl::FeatureId id, dsl::PromptsId prompts) {
  const auto& token = bound.rules->features[id].token;
  return {prompts, bound.feature_sites[id], token.kind, token.index};
}

/// What each set of prompts is run for, and the first feature that asks for it.
using Asked = std::map<dsl::PromptsId, std::map<VectorsKey, dsl::FeatureId>>;

Asked asked(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted) {
  Asked by_prompts;
  for (const dsl::FeatureId id : wanted) {
    const auto of = sides(bound.rules->features[id]);
    if (!of) continue;
    std::vector<dsl::PromptsId> sets = {of->p, of->q};
    if (of->zero.kind == dsl::ZeroPoint::Kind::mean_of) sets.push_back(of->zero.prompts);
    for (const dsl::PromptsId set : sets) by_prompts[set].emplace(key_of(bound, id, set), id);
  }
  return by_prompts;
}

/// The last site that these read, or judge their positions at.
dsl::Site last_site(const std::map<VectorsKey, dsl::FeatureId>& keys, const model::ModelConfig& config) {
  dsl::Site last;
  for (const auto& [key, id] : keys) {
    const dsl::Site site = dsl::whole(key.site);
    last = std::max({last, site, model::sink_site(site, config)});
  }
  return last;
}

bool keeps_sink(const BoundRules& bound, dsl::FeatureId id, const Sides& of) {
  return of.keep_sink || dsl::site_width(bound.feature_sites[id].kind) != dsl::SiteWidth::stream;
}

class Builder {
 public:
  Builder(const model::Transformer& transformer, const BoundRules& bound, AutoencoderShelf& autoencoders,
          const std::string& cache_directory, BuildCounts& counts, const Progress& progress)
      : transformer_(transformer),
        bound_(bound),
        autoencoders_(autoencoders),
        cache_directory_(cache_directory),
        counts_(counts),
        progress_(progress) {}

  dsl::Outcome<std::vector<Direction>> run(const std::set<dsl::FeatureId>& wanted) {
    for (const auto& [set, keys] : asked(bound_, wanted)) harvest(set, keys);
    dsl::Outcome<std::vector<Direction>> outcome;
    std::vector<Direction> directions(bound_.rules->features.size());
    if (diagnostics_.empty()) {
      for (dsl::FeatureId id : wanted) {
        directions[id].site = bound_.feature_sites[id];
        build(id, directions[id]);
      }
    }
    outcome.diagnostics = std::move(diagnostics_);
    if (outcome.diagnostics.empty()) outcome.value = std::move(directions);
    return outcome;
  }

 private:
  VectorsKey key(dsl::FeatureId id, dsl::PromptsId prompts) const { return key_of(bound_, id, prompts); }

  void error(Code code, dsl::FeatureId id, std::string message, std::vector<std::string> help = {}) {
    diagnostics_.push_back(dsl::make_diagnostic(code, bound_.rules->features[id].span,
                                                "feature `" + bound_.feature_name(id) + "` " + std::move(message),
                                                std::move(help)));
  }

  void harvest(dsl::PromptsId set, const std::map<VectorsKey, dsl::FeatureId>& keys) {
    const std::vector<Direction> none;
    HookProgram program(none, *bound_.card);
    for (const auto& [key, id] : keys) {
      const dsl::Site site = dsl::whole(key.site);
      program.capture(site);
      program.record_norm(model::sink_site(site, transformer_.config()));
    }
    const dsl::Site last = last_site(keys, transformer_.config());
    program.finish(transformer_.options().device);
    HookPass hooks(program);

    const auto& prompts = bound_.prompts[set];
    std::map<VectorsKey, std::vector<at::Tensor>> chosen;
    const auto length = [&](std::size_t i) { return std::ssize(prompts[i].tokens); };
    for (const auto& [begin, end] : model::pass_groups(prompts.size(), length)) {
      std::vector<model::Row> rows;
      std::int64_t tokens = 0;
      for (std::size_t i = begin; i < end; ++i) {
        tokens += length(i);
        rows.push_back({prompts[i].tokens, length(i)});
      }
      if (progress_) progress_("building features", counts_.sequences, 0);
      hooks.begin({});
      model::Pass pass;
      pass.rows = &rows;
      pass.visitor = &hooks;
      pass.stop_after = last;
      const auto layout = transformer_.forward(pass);
      counts_.sequences += static_cast<std::int64_t>(rows.size());
      counts_.tokens += tokens;
      for (const auto& [key, id] : keys) {
        for (std::size_t r = 0; r < rows.size(); ++r) {
          if (auto vector = choose(key, id, prompts[begin + r], layout.rows[r], hooks)) chosen[key].push_back(*vector);
        }
      }
    }
    for (auto& [key, vectors] : chosen) vectors_[key] = at::stack(vectors);
  }

  std::optional<at::Tensor> choose(const VectorsKey& key, dsl::FeatureId id, const BoundPrompt& prompt,
                                   const model::PackedLayout::RowSpan& span, const HookPass& hooks) {
    const dsl::Site site = dsl::whole(key.site);
    auto x = hooks.captured(site);
    if (key.site.head >= 0) {
      const std::int64_t width = bound_.card->site_width(key.site);
      x = x.narrow(1, key.site.head * width, width);
    }
    const auto norms = hooks.norm(model::sink_site(site, transformer_.config())).subspan(span.begin, span.length);
    const Mask ordinary = model::ordinary_positions(norms);
    if (key.kind == dsl::TokenChoice::Kind::all) {
      std::vector<std::int64_t> positions;
      for (std::int64_t i = 0; i < span.length; ++i) {
        if (ordinary[i]) positions.push_back(span.begin + i);
      }
      if (positions.empty()) {
        error(Code::prompt_too_short, id, "finds no position to average in \"" + prompt.text + "\"",
              {"write prompts of two tokens or more"});
        return std::nullopt;
      }
      return x.index_select(0, at::tensor(positions, at::kLong).to(x.device())).to(at::kDouble).mean(0).cpu();
    }
    const std::int64_t position = key.kind == dsl::TokenChoice::Kind::last ? span.length - 1
                                  : key.index < 0                          ? span.length + key.index
                                                                           : key.index;
    if (!ordinary[position]) {
      const std::vector<std::int64_t> token = {prompt.tokens[position]};
      error(Code::reads_sink, id,
            "reads \"" + bound_.tokenizer->decode(token) + "\" at position " + std::to_string(position) + " of \"" +
                prompt.text + "\", an attention sink at this layer: its residual norm is " +
                std::to_string(static_cast<std::int64_t>(norms[position])),
            {"end the prompt with another word, read another token, or build the feature at another layer"});
      return std::nullopt;
    }
    return x[span.begin + position].to(at::kDouble).cpu();
  }

  void build(dsl::FeatureId id, Direction& direction) {
    const auto& feature = bound_.rules->features[id];
    const auto doubles = [](const at::Tensor& t) { return t.to(at::kDouble).cpu(); };
    if (const auto of = sides(feature)) {
      contrast(id, *of, direction);
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
    std::vector<float> values(static_cast<std::size_t>(tensor->elements()));
    model::dequantize(*tensor, values);
    direction.d = at::tensor(values, at::kFloat).to(at::kDouble);
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

  /// Not normalised: the difference of means, or a probe's weights.
  static at::Tensor between(const at::Tensor& p, const at::Tensor& q, bool probe) {
    if (!probe) return p.mean(0) - q.mean(0);
    return logistic_direction(at::cat({p, q}),
                              at::cat({at::ones({p.size(0)}, at::kDouble), at::zeros({q.size(0)}, at::kDouble)}));
  }

  at::Tensor without_sinks(const at::Tensor& d) {
    const auto& sinks = this->sinks();
    return d - sinks.t().matmul(sinks.matmul(d));
  }

  void contrast(dsl::FeatureId id, const Sides& of, Direction& direction) {
    const auto& p = vectors_.at(key(id, of.p));
    const auto& q = vectors_.at(key(id, of.q));
    direction.built_on = p.size(0) + q.size(0);
    const bool probe = std::holds_alternative<dsl::Probe>(bound_.rules->features[id].constructor);
    const bool keep_sink = keeps_sink(bound_, id, of);
    auto d = between(p, q, probe);
    const double length = d.norm().item<double>();
    if (!keep_sink) d = without_sinks(d);
    const double kept = d.norm().item<double>();
    if (!(kept > 1e-9 * p.norm(2, 1).mean().item<double>())) {
      error(Code::no_contrast, id, "finds no difference between its two sides at " + dsl::to_string(direction.site),
            {"give the sides different texts, or read a layer that has seen the difference"});
      return;
    }
    direction.d = d / kept;
    direction.measures.emplace_back("sink_share_removed", 1 - (kept / length) * (kept / length));
    if (std::min(p.size(0), q.size(0)) >= kFewestToHalve) {
      const auto half = [&](std::int64_t first) {
        const auto some = [&](const at::Tensor& x) { return x.slice(0, first, std::nullopt, 2); };
        const auto own = between(some(p), some(q), probe);
        return keep_sink ? own : without_sinks(own);
      };
      const auto even = half(0), odd = half(1);
      const double norms = (even.norm() * odd.norm()).item<double>();
      if (norms > 0) direction.measures.emplace_back("halves_cosine", even.dot(odd).item<double>() / norms);
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

  const at::Tensor& sinks() {
    if (!sinks_.defined()) sinks_ = model::sink_states(transformer_, *bound_.tokenizer, cache_directory_);
    return sinks_;
  }

  const model::Transformer& transformer_;
  const BoundRules& bound_;
  AutoencoderShelf& autoencoders_;
  const std::string& cache_directory_;
  BuildCounts& counts_;
  const Progress& progress_;
  std::map<VectorsKey, at::Tensor> vectors_;  // [prompts, width] float64
  at::Tensor sinks_;
  std::vector<dsl::Diagnostic> diagnostics_;
};

}  // namespace

std::vector<BuildRun> build_runs(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted) {
  std::vector<BuildRun> runs;
  for (const auto& [set, keys] : asked(bound, wanted)) runs.push_back({set, last_site(keys, bound.card->config)});
  return runs;
}

bool needs_sink_states(const BoundRules& bound, const std::set<dsl::FeatureId>& wanted) {
  return std::any_of(wanted.begin(), wanted.end(), [&](dsl::FeatureId id) {
    const auto of = sides(bound.rules->features[id]);
    return of && !keeps_sink(bound, id, *of);
  });
}

dsl::Outcome<std::vector<Direction>> build_features(const model::Transformer& transformer, const BoundRules& bound,
                                                    const std::set<dsl::FeatureId>& wanted,
                                                    AutoencoderShelf& autoencoders, const std::string& cache_directory,
                                                    BuildCounts& counts, const Progress& progress) {
  return Builder(transformer, bound, autoencoders, cache_directory, counts, progress).run(wanted);
}

}  // namespace proviso::runtime

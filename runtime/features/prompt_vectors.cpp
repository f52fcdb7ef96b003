#include "runtime/features/prompt_vectors.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "runtime/model/pass_groups.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

using dsl::Code;

VectorsKey PromptVectors::want(dsl::FeatureId feature, dsl::PromptsId prompts, const dsl::Site& site) {
  const auto& token = bound_.rules->features[feature].token;
  const VectorsKey key{prompts, site, token.kind, token.index};
  wanted_.emplace(key, feature);
  return key;
}

void PromptVectors::read() {
  std::map<dsl::PromptsId, std::pair<std::vector<VectorsKey>, std::vector<dsl::Site>>> by_prompts;
  for (const auto& [key, feature] : wanted_) {
    if (!vectors_.contains(key) && !unreadable_.contains(key)) by_prompts[key.prompts].first.push_back(key);
  }
  for (const auto& [key, moments] : moments_) {
    if (!moments) by_prompts[key.first].second.push_back(key.second);
  }
  for (const auto& [set, asked] : by_prompts) read(set, asked.first, asked.second);
}

at::Tensor PromptVectors::part(const dsl::Site& site, const HookPass& hooks) const {
  const auto x = hooks.captured(dsl::whole(site));
  if (site.head < 0) return x;
  const std::int64_t width = bound_.card->site_width(site);
  return x.narrow(1, site.head * width, width);
}

void PromptVectors::read(dsl::PromptsId set, const std::vector<VectorsKey>& keys,
                         const std::vector<dsl::Site>& moments) {
  const std::vector<Direction> none;
  HookProgram program(none, *bound_.card);
  dsl::Site last;
  const auto capture = [&](const dsl::Site& of) {
    const dsl::Site site = dsl::whole(of);
    const dsl::Site norm_site = model::sink_site(site, transformer_.config());
    program.capture(site);
    program.record_norm(norm_site);
    last = std::max({last, site, norm_site});
  };
  for (const auto& key : keys) capture(key.site);
  for (const auto& site : moments) {
    capture(site);
    moments_.at({set, site}).emplace(bound_.card->site_width(site), 1);
  }
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
    for (const auto& key : keys) {
      for (std::size_t r = 0; r < rows.size(); ++r) {
        if (auto vector = choose(key, prompts[begin + r], layout.rows[r], hooks)) chosen[key].push_back(*vector);
      }
    }
    for (const auto& site : moments) {
      const auto norms = hooks.norm(model::sink_site(dsl::whole(site), transformer_.config()));
      std::vector<std::int64_t> positions;
      for (const auto& span : layout.rows) {
        const Mask ordinary = model::ordinary_positions(norms.subspan(span.begin, span.length));
        for (std::int64_t i = 0; i < span.length; ++i) {
          if (ordinary[i]) positions.push_back(span.begin + i);
        }
      }
      const auto x = part(site, hooks);
      const auto index = at::tensor(positions, at::kLong);
      moments_.at({set, site})->add(x.index_select(0, index.to(x.device())), at::zeros_like(index));
    }
  }
  for (auto& [key, vectors] : chosen) {
    if (!unreadable_.contains(key)) vectors_[key] = at::stack(vectors);
  }
}

std::optional<at::Tensor> PromptVectors::choose(const VectorsKey& key, const BoundPrompt& prompt,
                                                const model::PackedLayout::RowSpan& span, const HookPass& hooks) {
  const auto x = part(key.site, hooks);
  const auto norms =
      hooks.norm(model::sink_site(dsl::whole(key.site), transformer_.config())).subspan(span.begin, span.length);
  const Mask ordinary = model::ordinary_positions(norms);
  if (key.kind == dsl::TokenChoice::Kind::all) {
    std::vector<std::int64_t> positions;
    for (std::int64_t i = 0; i < span.length; ++i) {
      if (ordinary[i]) positions.push_back(span.begin + i);
    }
    if (positions.empty()) {
      refuse(key, Code::prompt_too_short, "finds no position to average in \"" + prompt.text + "\"",
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
    refuse(key, Code::reads_sink,
           "reads \"" + bound_.tokenizer->decode(token) + "\" at position " + std::to_string(position) + " of \"" +
               prompt.text + "\", an attention sink at this layer: its residual norm is " +
               std::to_string(static_cast<std::int64_t>(norms[position])),
           {"end the prompt with another word, read another token, or build the feature at another layer"});
    return std::nullopt;
  }
  return x[span.begin + position].to(at::kDouble).cpu();
}

void PromptVectors::refuse(const VectorsKey& key, Code code, std::string message, std::vector<std::string> help) {
  const dsl::FeatureId feature = wanted_.at(key);
  unreadable_[key].push_back(
      dsl::make_diagnostic(code, bound_.rules->features[feature].span,
                           "feature `" + bound_.feature_name(feature) + "` " + std::move(message), std::move(help)));
}

std::vector<dsl::Diagnostic> PromptVectors::unreadable(const VectorsKey& key) const {
  const auto found = unreadable_.find(key);
  return found == unreadable_.end() ? std::vector<dsl::Diagnostic>{} : found->second;
}

}  // namespace proviso::runtime

#include "audit/feature_reading.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/features/logit_weights.hpp"

namespace proviso::audit {

namespace {

using nlohmann::ordered_json;

constexpr std::size_t kBins = 12;

struct Place {
  double activation = 0;
  const ReadPrompts* of = nullptr;
  const runtime::BoundPrompt* prompt = nullptr;
  std::size_t position = 0;
};

ordered_json context(const Place& place, const Activations& activations, std::int64_t window,
                     const model::Tokenizer& tokenizer) {
  const auto length = place.prompt->tokens.size(), around = static_cast<std::size_t>(window);
  const std::size_t begin = place.position - std::min(place.position, around);
  const std::size_t end = std::min(length, place.position + around + 1);
  ordered_json tokens = ordered_json::array(), values = ordered_json::array();
  for (std::size_t i = begin; i < end; ++i) {
    tokens.push_back(tokenizer.decode(std::vector{place.prompt->tokens[i]}));
    values.push_back(activations.counts[i] ? ordered_json(activations.values[i]) : ordered_json(nullptr));
  }
  return {{"side", place.of->side},
          {"activation", place.activation},
          {"peak", place.position - begin},
          {"tokens", std::move(tokens)},
          {"activations", std::move(values)}};
}

}  // namespace

ordered_json contexts_json(EvidenceSource& source, const std::vector<ReadPrompts>& read, dsl::FeatureId feature,
                           const ContextChoice& choice, const model::Tokenizer& tokenizer) {
  std::vector<Place> places;
  for (const auto& side : read) {
    for (const auto& prompt : *side.prompts) {
      const auto activations = source.activations(0, prompt, feature);
      Place best{0, &side, nullptr, 0};
      for (std::size_t i = 0; i < activations.values.size(); ++i) {
        if (!activations.counts[i] || (best.prompt && activations.values[i] <= best.activation)) continue;
        best = {activations.values[i], &side, &prompt, i};
      }
      if (best.prompt && best.activation > 0) places.push_back(best);
    }
  }
  std::ranges::stable_sort(places, [](const Place& a, const Place& b) { return a.activation > b.activation; });
  places.resize(std::min(places.size(), static_cast<std::size_t>(choice.count)));
  ordered_json contexts = ordered_json::array();
  for (const auto& place : places) {
    contexts.push_back(context(place, source.activations(0, *place.prompt, feature), choice.window, tokenizer));
  }
  return contexts;
}

ordered_json histogram_json(const Values& area) {
  std::vector<double> all;
  for (const auto* side : {&area.values, &area.others})
    for (const auto& value : *side) all.push_back(value.sample.value);
  if (all.empty()) return nullptr;
  const auto [least, most] = std::ranges::minmax(all);
  const double width = (most - least) / static_cast<double>(kBins);
  const auto counts = [&, low = least](const std::vector<PromptValue>& side) {
    std::vector<std::int64_t> bins(kBins, 0);
    for (const auto& value : side) {
      const double at = width > 0 ? (value.sample.value - low) / width : 0;
      ++bins[std::min(kBins - 1, static_cast<std::size_t>(at))];
    }
    return bins;
  };
  ordered_json edges = ordered_json::array();
  for (std::size_t i = 0; i <= kBins; ++i) edges.push_back(least + width * static_cast<double>(i));
  return {{"edges", std::move(edges)}, {"positive", counts(area.values)}, {"negative", counts(area.others)}};
}

ordered_json logits_json(const model::Transformer& transformer, const runtime::Direction& feature, std::int64_t tokens,
                         const model::Tokenizer& tokenizer) {
  const auto unit = runtime::unit_in_stream(transformer, feature);
  const auto weights =
      unit.defined() ? runtime::logit_weights(transformer, unit, feature.site, tokens) : runtime::LogitWeights{};
  const auto listed = [&](const runtime::TokenWeights& of) {
    ordered_json list = ordered_json::array();
    for (const auto& [id, weight] : of)
      list.push_back({{"id", id}, {"text", tokenizer.decode(std::vector{id})}, {"weight", weight}});
    return list;
  };
  return {{"raises", listed(weights.raises)}, {"lowers", listed(weights.lowers)}};
}

ordered_json neighbours_json(const runtime::Direction& feature, std::int64_t count) {
  ordered_json neighbours = ordered_json::array();
  if (!feature.latent) return neighbours;
  const auto& rows = feature.latent->autoencoder->weights().W_dec;
  const auto d = feature.d.to(rows.device(), at::kFloat);
  auto cosines = rows.matmul(d) / rows.norm(2, 1).clamp_min(1e-12);
  cosines[feature.latent->index] = -2;  // its own
  const auto [values, latents] = cosines.topk(std::min(count, rows.size(0) - 1));
  for (std::int64_t i = 0; i < latents.size(0); ++i) {
    neighbours.push_back({{"latent", latents[i].item<std::int64_t>()}, {"cosine", values[i].item<double>()}});
  }
  return neighbours;
}

}  // namespace proviso::audit

#include "runtime/model/sinks.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "runtime/formats/sha256.hpp"
#include "runtime/model/tensor_cache.hpp"

namespace proviso::model {

namespace {

constexpr std::int64_t kMostSinkDirections = 4;
constexpr double kSinkShare = 0.99;

// How texts begin: what stands here only has to be varied.
constexpr std::array<std::string_view, kSinkSequences> kFirstWords = {
    "The", "I",    "In",    "A",  "What", "She", "He",   "It",    "My",      "When", "How", "Once",
    "You", "This", "Paris", "No", "1",    "def", "Dear", "There", "Because", "\"",   "We",  "On"};

/// The mean of the first positions' vectors, site by site of the residual stream, at unit length: sinks grow a
/// hundredfold over the layers, and the early ones must not be lost beside the late.
class FirstPositions : public SiteVisitor {
 public:
  bool wants(const dsl::Site& site) const override {
    return site.kind == dsl::SiteKind::embed || site.kind == dsl::SiteKind::resid_mid ||
           site.kind == dsl::SiteKind::resid_post;
  }
  void visit(const dsl::Site&, at::Tensor& x, const PackedLayout&) override {
    const auto mean = x.to(at::kDouble).mean(0).cpu();
    means.push_back(mean / mean.norm().clamp_min(1e-12));
  }
  std::vector<at::Tensor> means;  // [width] each
};

at::Tensor compute_sink_states(const Transformer& transformer, const Tokenizer& tokenizer) {
  std::vector<Row> rows;
  for (std::string_view word : kFirstWords) {
    auto tokens = tokenizer.encode(word, /*add_special=*/true);
    tokens.resize(1);
    rows.push_back({std::move(tokens), 1});
  }
  FirstPositions visitor;
  Pass pass;
  pass.rows = &rows;
  pass.visitor = &visitor;
  pass.stop_after = dsl::Site{dsl::SiteKind::resid_post, transformer.config().layers - 1, -1};
  transformer.forward(pass);

  const auto [u, s, vh] = at::linalg_svd(at::stack(visitor.means), /*full_matrices=*/false);
  const auto energy = s * s;
  const auto share = energy.cumsum(0) / energy.sum();
  std::int64_t rank = 1;
  while (rank < std::min(kMostSinkDirections, s.numel()) && share[rank - 1].item<double>() < kSinkShare) ++rank;
  return vh.narrow(0, 0, rank).to(at::kFloat).contiguous();  // as a file gives them: products round equally
}

/// Of the text that the states are measured on.
std::string first_words_sha256() {
  std::string text;
  for (std::string_view word : kFirstWords) text.append(word).push_back('\n');
  return sha256_hex(std::as_bytes(std::span(text)));
}

}  // namespace

dsl::Site sink_site(const dsl::Site& site, const ModelConfig& config) {
  using dsl::SiteKind;
  switch (site.kind) {
    case SiteKind::embed:
    case SiteKind::resid_pre:
    case SiteKind::resid_mid:
    case SiteKind::resid_post:
      return dsl::canonical(site);
    case SiteKind::final_norm:
    case SiteKind::logits:
      return {SiteKind::resid_post, config.layers - 1, -1};
    default:
      return dsl::canonical({SiteKind::resid_pre, site.layer, -1});
  }
}

std::vector<std::uint8_t> ordinary_positions(std::span<const float> norms) {
  std::vector<std::uint8_t> ordinary(norms.size(), 1);
  if (norms.empty()) return ordinary;
  ordinary[0] = 0;
  std::vector<float> sorted(norms.begin(), norms.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  float median = *middle;
  if (sorted.size() % 2 == 0) median = (median + *std::max_element(sorted.begin(), middle)) / 2;
  for (std::size_t i = 1; i < norms.size(); ++i) ordinary[i] = norms[i] <= kSinkNormRatio * median;
  return ordinary;
}

at::Tensor sink_states(const Transformer& transformer, const Tokenizer& tokenizer, const std::string& cache_directory) {
  const TensorCache cache(transformer, cache_directory, "sink_states", {{"text", first_words_sha256()}});
  if (const auto kept = cache.read();
      kept && kept->value.dim() == 2 && kept->value.size(1) == transformer.config().width)
    return kept->value.to(at::kDouble);
  const auto states = compute_sink_states(transformer, tokenizer);
  cache.write(states);
  return states.to(at::kDouble);
}

}  // namespace proviso::model

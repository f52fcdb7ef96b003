#include "editing/second_moments.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdlib>
#include <span>

#include "editing/site_capture.hpp"
#include "runtime/model/sinks.hpp"
#include "runtime/model/tensor_cache.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

constexpr std::int64_t kRowLength = 128;
constexpr std::size_t kRowsAPass = 16;
constexpr char kKind[] = "second_moment";

SecondMoment compute(const model::Transformer& transformer, const model::Tokenizer& tokenizer, std::int64_t layer,
                     const Corpus& corpus) {
  const at::NoGradGuard no_grad;
  const auto& config = transformer.config();
  const Site keys_site{SiteKind::mlp_post, layer}, residual_site{SiteKind::resid_post, layer};
  auto sum = at::zeros({config.neurons, config.neurons}, at::device(transformer.options().device).dtype(at::kDouble));
  SecondMoment moment{.layer = layer, .C = {}, .tokens = 0, .sinks = 0, .corpus_sha256 = corpus.sha256};

  const auto all_rows = corpus_rows(corpus, tokenizer, std::min(kRowLength, config.context));
  for (std::size_t first = 0; first < all_rows.size(); first += kRowsAPass) {
    const std::vector<model::Row> rows(all_rows.begin() + first,
                                       all_rows.begin() + std::min(first + kRowsAPass, all_rows.size()));
    SiteCapture capture({keys_site, residual_site});
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &capture;
    pass.stop_after = residual_site;
    const auto layout = transformer.forward(pass);
    const auto kept = ordinary_positions(capture.at(residual_site), layout);
    const auto K = capture.at(keys_site).index({kept}).to(at::kDouble);  // [kept, neurons]
    sum.addmm_(K.t(), K);
    moment.tokens += K.size(0);
    moment.sinks += layout.size() - K.size(0);
  }
  if (moment.tokens == 0)
    throw model::InputError("the text for the second moments holds too few tokens; name a longer one");
  moment.C = (sum / static_cast<double>(moment.tokens)).to(at::kFloat).to(at::kDouble);
  return moment;
}

/// Checks that what a file holds is of `layer` and of that many neurons a layer.
SecondMoment from_kept(const std::string& path, const model::KeptTensor& kept, std::int64_t layer,
                       std::int64_t neurons) {
  const auto refuse = [&](const std::string& why) -> void {
    throw model::InputError(path + ": " + why + "; name a file of second moments of this model, or a text to measure");
  };
  if (kept.value.sizes() != at::IntArrayRef{neurons, neurons})
    refuse("is not of " + std::to_string(neurons) + " neurons by " + std::to_string(neurons));
  const auto field = [&](const char* key) {
    const auto found = kept.metadata.find(key);
    if (found == kept.metadata.end()) refuse("does not say its `" + std::string(key) + "`");
    return found->second;
  };
  if (field("layer") != std::to_string(layer))
    refuse("is of layer " + field("layer") + ", not " + std::to_string(layer));
  return {layer, kept.value.to(at::kDouble), std::atoll(field("tokens").c_str()), std::atoll(field("sinks").c_str()),
          field("corpus")};
}

}  // namespace

at::Tensor ordinary_positions(const at::Tensor& residual, const model::PackedLayout& layout) {
  const auto norms = residual.to(at::kFloat).norm(2, -1).cpu().contiguous();  // [n]
  const std::span<const float> all(norms.const_data_ptr<float>(), static_cast<std::size_t>(norms.numel()));
  auto kept = at::empty({norms.numel()}, at::kBool);
  for (const auto& row : layout.rows) {
    std::ranges::copy(model::ordinary_positions(all.subspan(row.begin, row.length)),
                      kept.mutable_data_ptr<bool>() + row.begin);
  }
  return kept.to(residual.device());
}

SecondMoment read_second_moment(const std::string& path, std::int64_t layer, std::int64_t neurons) {
  return from_kept(path, model::read_kept_tensor(path, kKind), layer, neurons);
}

SecondMoment second_moment(const model::Transformer& transformer, const model::Tokenizer& tokenizer, std::int64_t layer,
                           const Corpus& corpus, const std::string& cache_directory) {
  const model::TensorCache cache(transformer, cache_directory, kKind,
                                 {{"layer", std::to_string(layer)}, {"corpus", corpus.sha256}});
  const auto neurons = transformer.config().neurons;
  if (const auto kept = cache.read(); kept && kept->value.sizes() == at::IntArrayRef{neurons, neurons}) {
    auto moment = from_kept(cache_directory, *kept, layer, neurons);
    moment.C = moment.C.to(transformer.options().device);
    return moment;
  }
  auto moment = compute(transformer, tokenizer, layer, corpus);
  cache.write(moment.C, {{"tokens", std::to_string(moment.tokens)}, {"sinks", std::to_string(moment.sinks)}});
  return moment;
}

}  // namespace proviso::editing

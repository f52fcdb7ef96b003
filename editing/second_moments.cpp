#include "editing/second_moments.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <span>
#include <tuple>
#include <utility>

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

/// One pass over the corpus for all layers.
std::vector<SecondMoment> compute(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                  const std::vector<std::int64_t>& layers, const Corpus& corpus) {
  const at::NoGradGuard no_grad;
  const auto& config = transformer.config();
  std::vector<SecondMoment> moments;
  std::vector<Site> sites;
  for (const auto layer : layers) {
    auto sum = at::zeros({config.neurons, config.neurons}, at::device(transformer.options().device).dtype(at::kDouble));
    moments.push_back({.layer = layer, .C = sum, .tokens = 0, .sinks = 0, .corpus_sha256 = corpus.sha256});
    sites.push_back({SiteKind::mlp_post, layer});
    sites.push_back({SiteKind::resid_post, layer});
  }

  const auto all_rows = corpus_rows(corpus, tokenizer, std::min(kRowLength, config.context));
  for (std::size_t first = 0; first < all_rows.size(); first += kRowsAPass) {
    const std::vector<model::Row> rows(all_rows.begin() + first,
                                       all_rows.begin() + std::min(first + kRowsAPass, all_rows.size()));
    SiteCapture capture(sites);
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &capture;
    pass.stop_after = Site{SiteKind::resid_post, *std::ranges::max_element(layers)};
    const auto layout = transformer.forward(pass);
    for (auto& moment : moments) {
      const auto kept = ordinary_positions(capture.at({SiteKind::resid_post, moment.layer}), layout);
      const auto K = capture.at({SiteKind::mlp_post, moment.layer}).index({kept}).to(at::kDouble);  // [kept, neurons]
      moment.C.addmm_(K.t(), K);
      moment.tokens += K.size(0);
      moment.sinks += layout.size() - K.size(0);
    }
  }
  for (auto& moment : moments) {
    if (moment.tokens == 0)
      throw model::InputError("the text for the second moments holds too few tokens; name a longer one");
    moment.C = (moment.C / static_cast<double>(moment.tokens)).to(at::kFloat).to(at::kDouble);
  }
  return moments;
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

SecondMoment read_second_moment(const model::Transformer& transformer, const std::string& path, std::int64_t layer,
                                const std::string& cache_directory) {
  const auto kept = model::read_kept_tensor(path, kKind);
  const auto of = kept.metadata.find("model");
  if (of != kept.metadata.end() && of->second != transformer.card().sha256(cache_directory))
    throw model::InputError(path + ": was measured on another model; name one of this model, or a text to measure");
  auto moment = from_kept(path, kept, layer, transformer.config().neurons);
  moment.C = moment.C.to(transformer.options().device);
  return moment;
}

double needed_ridge(const SecondMoment& moment, double asked) {
  constexpr double kLeast = 1e-3;
  return asked > 0 || moment.tokens >= moment.C.size(0) ? asked : kLeast;
}

void MomentFactors::of(const at::Tensor& C) {
  if (of_.is_same(C) && version_ == C._version()) return;
  *this = {};
  of_ = C;
  version_ = C._version();
}

at::Tensor MomentFactors::cholesky(const at::Tensor& C, double ridge) {
  of(C);
  if (L_.defined() && ridge_ == ridge) return L_;
  const auto added = at::diag((ridge * C.diagonal().mean()).expand({C.size(0)}));
  const auto [L, info] = at::linalg_cholesky_ex(C + added);
  if (info.item<std::int64_t>() != 0) return {};
  L_ = L;
  ridge_ = ridge;
  return L_;
}

std::pair<at::Tensor, at::Tensor> MomentFactors::eigen(const at::Tensor& C) {
  of(C);
  if (!values_.defined()) std::tie(values_, vectors_) = at::linalg_eigh(C);
  return {values_, vectors_};
}

namespace {

Refusal singular(const SecondMoment& moment, const std::string& cure) {
  if (!moment.C.isfinite().all().item<bool>())
    return Refusal{"the second moment of mlp_post[" + std::to_string(moment.layer) +
                   "] holds values that are no numbers: so do the model's weights up to there; check the model"};
  return Refusal{"the equations at mlp_post[" + std::to_string(moment.layer) +
                 "] are singular, with a second moment of " + std::to_string(moment.tokens) + " tokens and " +
                 std::to_string(moment.C.size(0)) + " neurons: " + cure};
}

std::variant<at::Tensor, Refusal> solved_by(const at::Tensor& L, const at::Tensor& B, const SecondMoment& moment,
                                            const std::string& cure) {
  if (!L.defined()) return singular(moment, cure);
  auto X = at::cholesky_solve(B, L);
  if (!X.isfinite().all().item<bool>()) return singular(moment, cure);
  return X;
}

}  // namespace

std::variant<at::Tensor, Refusal> solve_moments(const at::Tensor& S, const at::Tensor& B, const SecondMoment& moment,
                                                const std::string& cure) {
  const auto [L, info] = at::linalg_cholesky_ex(S);
  return solved_by(info.item<std::int64_t>() == 0 ? L : at::Tensor(), B, moment, cure);
}

std::variant<at::Tensor, Refusal> solve_moment(const SecondMoment& moment, double ridge, const at::Tensor& B,
                                               const std::string& cure) {
  return solved_by(moment.factors->cholesky(moment.C, ridge), B, moment, cure);
}

std::vector<SecondMoment> second_moments(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                         const std::vector<std::int64_t>& layers, const Corpus& corpus,
                                         const std::string& cache_directory) {
  const auto neurons = transformer.config().neurons;
  const auto cache = [&](std::int64_t layer) {
    return model::TensorCache(transformer, cache_directory, kKind,
                              {{"layer", std::to_string(layer)}, {"corpus", corpus.sha256}});
  };
  std::map<std::int64_t, SecondMoment> found;
  std::vector<std::int64_t> missing;
  for (const auto layer : layers) {
    if (const auto kept = cache(layer).read(); kept && kept->value.sizes() == at::IntArrayRef{neurons, neurons}) {
      auto moment = from_kept(cache_directory, *kept, layer, neurons);
      moment.C = moment.C.to(transformer.options().device);
      found.emplace(layer, std::move(moment));
    } else {
      missing.push_back(layer);
    }
  }
  if (!missing.empty()) {
    for (auto& moment : compute(transformer, tokenizer, missing, corpus)) {
      cache(moment.layer)
          .write(moment.C, {{"tokens", std::to_string(moment.tokens)}, {"sinks", std::to_string(moment.sinks)}});
      found.emplace(moment.layer, std::move(moment));
    }
  }
  std::vector<SecondMoment> moments;
  for (const auto layer : layers) moments.push_back(found.at(layer));
  return moments;
}

}  // namespace proviso::editing

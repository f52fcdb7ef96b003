#include "editing/second_moments.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <span>

#include "editing/site_capture.hpp"
#include "runtime/formats/safetensors.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

constexpr double kSinkFactor = 4;
constexpr std::int64_t kRowLength = 128;
constexpr std::size_t kRowsAPass = 16;
constexpr char kTensorName[] = "second_moment";

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

/// What a cache file must say of itself to be used.
using Identity = std::map<std::string, std::string>;

Identity identity(const model::Transformer& transformer, std::int64_t layer, const Corpus& corpus,
                  const std::string& cache_directory) {
  return {{"model", transformer.card().sha256(cache_directory)},
          {"dtype", at::toString(transformer.options().dtype)},
          {"layer", std::to_string(layer)},
          {"corpus", corpus.sha256},
          {"version", "1"}};
}

/// Nothing where the file is missing, is of something else, or is damaged: it is computed again and replaced.
std::optional<SecondMoment> read_cached(const std::string& path, const Identity& identity, std::int64_t layer,
                                        std::int64_t neurons) try {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const auto metadata = model::read_safetensors(path).metadata;
  for (const auto& [key, value] : identity)
    if (metadata.at(key) != value) return std::nullopt;
  return read_second_moment(path, layer, neurons);
} catch (const std::exception&) {
  return std::nullopt;
}

void write_cached(const std::string& path, Identity metadata, const SecondMoment& moment) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  metadata["tokens"] = std::to_string(moment.tokens);
  metadata["sinks"] = std::to_string(moment.sinks);
  const auto C = moment.C.to(at::kCPU, at::kFloat).contiguous();
  model::write_safetensors(path,
                           {{.name = kTensorName,
                             .type = model::ElementType::f32,
                             .shape = C.sizes().vec(),
                             .bytes = {static_cast<const std::byte*>(C.const_data_ptr()), C.nbytes()}}},
                           metadata);
}

}  // namespace

at::Tensor ordinary_positions(const at::Tensor& residual, const model::PackedLayout& layout) {
  const auto norms = residual.to(at::kFloat).norm(2, -1);  // [n]
  auto kept = layout.positions > 0;
  for (const auto& row : layout.rows) {
    const auto of_row = norms.narrow(0, row.begin, row.length);
    kept.narrow(0, row.begin, row.length).logical_and_(of_row <= kSinkFactor * of_row.median());
  }
  return kept;
}

SecondMoment read_second_moment(const std::string& path, std::int64_t layer, std::int64_t neurons) {
  const auto file = model::read_safetensors(path);
  const auto refuse = [&](const std::string& why) -> void {
    throw model::InputError(path + ": " + why + "; name a file of second moments of this model, or a text to measure");
  };
  const auto stored = std::ranges::find(file.tensors, kTensorName, &model::StoredTensor::name);
  if (stored == file.tensors.end() || stored->type != model::ElementType::f32)
    refuse("holds no float32 tensor `" + std::string(kTensorName) + "`");
  if (stored->shape != std::vector{neurons, neurons})
    refuse("is not of " + std::to_string(neurons) + " neurons by " + std::to_string(neurons));
  const auto field = [&](const char* key) {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end()) refuse("does not say its `" + std::string(key) + "`");
    return found->second;
  };
  if (field("layer") != std::to_string(layer))
    refuse("is of layer " + field("layer") + ", not " + std::to_string(layer));
  auto C = at::empty({neurons, neurons}, at::kFloat);
  model::dequantize(*stored, {C.mutable_data_ptr<float>(), static_cast<std::size_t>(C.numel())});
  if (!C.isfinite().all().item<bool>()) refuse("holds values that are no numbers");
  return {layer, C.to(at::kDouble), std::atoll(field("tokens").c_str()), std::atoll(field("sinks").c_str()),
          field("corpus")};
}

SecondMoment second_moment(const model::Transformer& transformer, const model::Tokenizer& tokenizer, std::int64_t layer,
                           const Corpus& corpus, const std::string& cache_directory) {
  if (cache_directory.empty()) return compute(transformer, tokenizer, layer, corpus);
  const auto wanted = identity(transformer, layer, corpus, cache_directory);
  const auto path = (std::filesystem::path(cache_directory) / "second_moments" /
                     (wanted.at("model").substr(0, 16) + "-" + wanted.at("dtype") + "-" + std::to_string(layer) + "-" +
                      wanted.at("corpus").substr(0, 16) + ".safetensors"))
                        .string();
  if (auto cached = read_cached(path, wanted, layer, transformer.config().neurons)) {
    cached->C = cached->C.to(transformer.options().device);
    return *cached;
  }
  auto moment = compute(transformer, tokenizer, layer, corpus);
  write_cached(path, wanted, moment);
  return moment;
}

}  // namespace proviso::editing

#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/model/transformer.hpp"

namespace proviso::test {

/// Tiny random models, one for each form that the body takes, made by tests/parity/model/make_tiny_models.py.
inline const std::vector<std::string> kTinyModels = {"llama_llama3_bias_untied",
                                                     "llama_linear_tied",
                                                     "gpt2",
                                                     "gpt_neox_parallel",
                                                     "gpt_neox_sequential_tied",
                                                     "mistral",
                                                     "qwen2",
                                                     "qwen3",
                                                     "gemma2"};

inline std::string tiny_model_path(const std::string& name) { return PROVISO_SOURCE_DIR "/tests/parity/model/" + name; }

inline std::unique_ptr<model::Transformer> load_tiny_model(const std::string& name, at::ScalarType dtype = at::kFloat,
                                                           at::Device device = at::kCPU) {
  return model::Transformer::load(model::read_model_card(tiny_model_path(name)), {dtype, device});
}

inline std::vector<model::Row> rows_of(const std::vector<std::vector<std::int64_t>>& tokens) {
  std::vector<model::Row> rows;
  for (const auto& row : tokens) rows.push_back({row, static_cast<std::int64_t>(row.size())});
  return rows;
}

/// Logits of every token of a pass, [n, vocabulary].
inline at::Tensor logits_of(const model::Transformer& transformer, model::Pass pass) {
  std::vector<at::Tensor> chunks;
  pass.logits_at = std::nullopt;
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits); };
  transformer.forward(pass);
  return at::cat(chunks);
}

/// The largest |a − b| / max(1, |b|).
inline double difference(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor expected = b.to(at::kDouble);
  return ((a.to(at::kDouble) - expected).abs() / expected.abs().clamp_min(1)).max().item<double>();
}

/// Remembers every site's values, the pattern's and the logits' in order of their calls.
struct Recorder : model::SiteVisitor {
  std::vector<std::pair<dsl::Site, std::vector<at::Tensor>>> seen;

  bool wants(const dsl::Site&) const override { return true; }
  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout&) override {
    if (seen.empty() || !(seen.back().first == site)) seen.push_back({site, {}});
    seen.back().second.push_back(x.clone());
  }
};

}  // namespace proviso::test

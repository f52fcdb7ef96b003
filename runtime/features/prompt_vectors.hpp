#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "editing/leace.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/features/build.hpp"
#include "runtime/hooks.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// The vectors of one prompt set at one site and token choice.
struct VectorsKey {
  dsl::PromptsId prompts = 0;
  dsl::Site site;
  dsl::TokenChoice::Kind kind = dsl::TokenChoice::Kind::last;
  std::int64_t index = 0;
  auto operator<=>(const VectorsKey&) const = default;
};

/// Reads what features are built from off the model: one vector a prompt, or the moments of all its positions. Each set
/// of prompts runs once, as far as the last site asked for.
class PromptVectors {
 public:
  PromptVectors(const model::Transformer& transformer, const BoundRules& bound, BuildCounts& counts,
                const Progress& progress)
      : transformer_(transformer), bound_(bound), counts_(counts), progress_(progress) {}

  /// `feature` is whose token choice it is, and whom a diagnostic is about.
  VectorsKey want(dsl::FeatureId feature, dsl::PromptsId prompts, const dsl::Site& site);
  /// The mean and covariance of the set's ordinary positions.
  void want_moments(dsl::PromptsId prompts, const dsl::Site& site) { moments_.try_emplace({prompts, site}); }
  void read();

  /// [prompts, width] float64. Ask `unreadable` first.
  const at::Tensor& at(const VectorsKey& key) const { return vectors_.at(key); }
  const editing::ClassMoments& moments(dsl::PromptsId prompts, const dsl::Site& site) const {
    return *moments_.at({prompts, site});
  }
  /// What is wrong with prompts there, about the feature that asked first; empty where all could be read.
  std::vector<dsl::Diagnostic> unreadable(const VectorsKey& key) const;

 private:
  void read(dsl::PromptsId set, const std::vector<VectorsKey>& keys, const std::vector<dsl::Site>& moments);
  std::optional<at::Tensor> choose(const VectorsKey& key, const BoundPrompt& prompt,
                                   const model::PackedLayout::RowSpan& span, const HookPass& hooks);
  at::Tensor part(const dsl::Site& site, const HookPass& hooks) const;
  void refuse(const VectorsKey& key, dsl::Code code, std::string message, std::vector<std::string> help);

  const model::Transformer& transformer_;
  const BoundRules& bound_;
  BuildCounts& counts_;
  const Progress& progress_;
  std::map<VectorsKey, dsl::FeatureId> wanted_;
  std::map<VectorsKey, at::Tensor> vectors_;
  std::map<VectorsKey, std::vector<dsl::Diagnostic>> unreadable_;
  std::map<std::pair<dsl::PromptsId, dsl::Site>, std::optional<editing::ClassMoments>> moments_;
};

}  // namespace proviso::runtime

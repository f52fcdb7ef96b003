#pragma once

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "cli/models.hpp"

namespace proviso::cli {

/// What features are on a model, for an editor that asks as somebody reads: measured in the background, one at a time,
/// by weights that are read when the first is asked for.
class Calibrations {
 public:
  /// Both outlive it.
  Calibrations(const Invocation& invocation, const ModelFiles& files) : invocation_(invocation), files_(files) {}
  /// Gives up what is under way.
  ~Calibrations();
  Calibrations(const Calibrations&) = delete;
  Calibrations& operator=(const Calibrations&) = delete;

  /// A sentence on a feature of `rules`: its scale and offset and what it was built on, why it cannot be built, or
  /// that it is being measured. Never waits.
  std::string told(const std::shared_ptr<const dsl::RuleSet>& rules, const std::string& feature);

 private:
  struct GivenUp {};
  std::string measured(std::shared_ptr<const dsl::RuleSet> rules, dsl::FeatureId feature);

  const Invocation& invocation_;
  const ModelFiles& files_;
  std::shared_ptr<const dsl::RuleSet> rules_;  ///< of what is known
  std::map<dsl::FeatureId, std::string> known_;
  std::unique_ptr<model::Transformer> weights_;  ///< used by what is under way alone
  std::atomic<bool> give_up_ = false;
  struct UnderWay {
    std::shared_ptr<const dsl::RuleSet> rules;
    dsl::FeatureId feature = 0;
    std::future<std::string> text;
  };
  std::optional<UnderWay> under_way_;
};

}  // namespace proviso::cli

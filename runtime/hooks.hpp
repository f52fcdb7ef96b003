#pragma once

// Interventions as fused hooks: what a set of sentences does to the activations at each site.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/activity.hpp"
#include "runtime/condition.hpp"
#include "runtime/features/direction.hpp"
#include "runtime/model/reading_visitor.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/perturbation.hpp"
#include "runtime/replacement.hpp"

namespace proviso::runtime {

/// A feature at a canonical site (which may name a head), where it is read or taken out.
using FeaturePlace = std::pair<dsl::Site, dsl::FeatureId>;

/// One sentence at one site.
struct HookStep {
  std::size_t number = 0;  ///< over the whole program, in the order of `HookProgram::add`
  std::size_t slot = 0;    ///< of its feature, in the site's program
  dsl::Operation operation = dsl::Operation::suppress;
  dsl::FeatureId feature = 0;
  double amount = 0;
  std::optional<std::size_t> condition;  ///< in the program's ConditionSet
  std::vector<std::size_t> branches;     ///< the alternatives of a condition that is an `or`, there, too
  bool of_change = false;                ///< belongs to an `effect`'s change: a control replaces it
};

/// What happens at one site: all features read or written there share one product x·Dᵀ.
struct SiteProgram {
  struct Slot {
    dsl::FeatureId feature = 0;
    std::int64_t head = -1;  ///< the direction fills one head's part of the width
    double b = 0, c = 1;
    bool read = false;     ///< at its own site: by conditions or by the recorder
    bool carried = false;  ///< a transcoder's latent where it writes: its activation is what was read at its own site
  };
  /// Slots that latents of one autoencoder fill: one product with its encoder gives them all.
  struct Encoder {
    std::shared_ptr<const Autoencoder> autoencoder;
    std::int64_t begin = 0;          ///< of the head that it reads, in the site's width
    std::vector<std::size_t> slots;  ///< in the order of `latents`
    at::Tensor latents;              // [m] int64, on the model's device
  };
  std::vector<Slot> slots;
  std::vector<HookStep> steps;
  at::Tensor directions;  // [slots, width] float32, on the model's device; of latents what one unit adds
  at::Tensor gram;        // [slots, slots] float64
  std::vector<Encoder> encoders;
  std::vector<std::uint8_t> is_latent;  ///< by slot
  at::Tensor along;                     // [m] int64: the slots that are no latents; undefined: all of them
};

/// Everything that is read or written in the passes of one model state. Built once, then immutable.
class HookProgram {
 public:
  HookProgram(const std::vector<Direction>& features, const model::ModelCard& card)
      : features_(features), card_(card) {}

  /// Adds a sentence at canonical `sites`; returns the number of its step at the first, the others follow.
  std::size_t add(const dsl::Intervention& sentence, const std::vector<dsl::Site>& sites, bool of_change,
                  const ConditionSet::TokenId& token_id, const ConditionSet::QuantileValue& quantile);
  /// A condition of what is replaced; it reads no feature.
  std::size_t condition(const dsl::Condition& condition, const ConditionSet::TokenId& token_id) {
    return conditions_.add(condition, token_id, [](const dsl::Quantile&) { return 0.0; });
  }
  /// What whole activations give way to, after the steps; empty: nothing.
  std::optional<ReplacementProgram>& replacements() { return replacements_; }
  const std::optional<ReplacementProgram>& replacements() const { return replacements_; }
  /// Has the feature's activation recorded at every token.
  void record(dsl::FeatureId feature) { read(feature); }
  /// Has d·x (of a latent its activation) kept at every token, at any site that the feature can be taken out of.
  void keep_product(const FeaturePlace& place);
  /// Has the L2 norm of the vectors at a site recorded at every token.
  void record_norm(const dsl::Site& site) { norm_sites_.insert(site); }
  /// Has the vectors at a site kept.
  void capture(const dsl::Site& site) { captured_.insert(site); }
  /// Computes the shared matrices; nothing is added after.
  void finish(at::Device device);

  std::size_t steps() const { return step_count_; }
  const ConditionSet& conditions() const { return conditions_; }

 private:
  friend class HookPass;
  std::size_t slot(const dsl::Site& site, dsl::FeatureId feature);
  static void add_latent(SiteProgram& program, std::size_t slot, const LatentOf& latent, std::int64_t begin);
  void read(dsl::FeatureId feature);

  const std::vector<Direction>& features_;
  const model::ModelCard& card_;
  ConditionSet conditions_;
  std::map<dsl::Site, SiteProgram> sites_;
  std::set<dsl::Site> norm_sites_, captured_;
  std::set<FeaturePlace> kept_products_;
  std::optional<ReplacementProgram> replacements_;
  std::size_t step_count_ = 0;
};

/// Runs a program's hooks in forward passes and keeps what they saw.
class HookPass : public model::ReadingVisitor {
 public:
  explicit HookPass(const HookProgram& program);

  /// Before each forward pass: what the conditions remember of its rows (updated by it).
  void begin(std::vector<RowMemory*> rows);
  void set_control(const ControlChange* control) {
    control_ = control;
    if (replacing_) replacing_->set_control(control);
  }
  /// What whole activations are replaced by; null where nothing is.
  ReplacementPass* replacing() { return replacing_.get(); }
  const ReplacementPass* replacing() const { return replacing_.get(); }
  /// What is added in the next passes, after all that is written at its site; null: nothing.
  void set_perturbation(const PassPerturbation* perturbation) { perturbation_ = perturbation; }
  /// What an ablation sets d·x to (of a latent its activation), by the pass's row and the position in its sequence.
  using Ablated = std::function<float(const FeaturePlace& place, std::size_t row, std::int64_t position)>;
  /// In place of what the sentences of an effect's change ask for, where they act; null: as they say.
  void set_ablated(const Ablated* ablated) { ablated_ = ablated; }
  /// Measures ‖Δx‖/‖x‖ for the activity, and ‖Δx‖ of an effect's change (`change_norms`).
  void measure_changes(bool on) {
    measure_ = on;
    if (replacing_) replacing_->measure_changes(on);
  }

  bool wants(const dsl::Site& site) const override;
  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout) override;
  model::StreamReader* reader() override;

  // Of the last pass, by packed token:
  std::span<const float> activation(dsl::FeatureId feature) const;
  std::span<const float> norm(const dsl::Site& site) const;
  std::span<const float> product(const FeaturePlace& place) const { return products_.at(place); }
  const at::Tensor& captured(const dsl::Site& site) const { return captured_.at(site); }  // [n, width] float32
  std::map<dsl::Site, std::vector<float>> change_norms() const;
  /// Whether a step's condition held (or it has none) at each token.
  const Mask& fired(std::size_t step) const { return steps_[step].fired; }
  /// Whether a step asked for another activation than it found there: it was part of changing the vector.
  const Mask& moved(std::size_t step) const { return steps_[step].moved; }

  // Over all passes:
  const Activity& activity(std::size_t step) const { return steps_[step].activity; }

 private:
  struct Solver;
  /// What is read at one site before anything is written there, [n, slots] each.
  struct Reading {
    std::size_t slots = 0;
    std::vector<float> products;  ///< d·x; of latents the activation
    std::vector<float> scales;    ///< what a latent's unit is multiplied by at that token; empty: 1 everywhere
    std::size_t size() const { return products.size() / slots; }
  };
  Reading read(const SiteProgram& program, const at::Tensor& x) const;
  void run_program(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout);
  struct StepRecord {
    Mask fired, moved;
    std::vector<float> products;  ///< that an ablation leaves, by token; empty: the step does as it says
    Activity activity;
  };
  void write(const dsl::Site& site, const SiteProgram& program, const Reading& reading, at::Tensor& x,
             const model::PackedLayout& layout);
  /// Asks what the change's steps at a site are to leave there.
  void ask_ablated(const dsl::Site& site, const SiteProgram& program, const model::PackedLayout& layout);
  /// The activation that a step asks for at a token.
  double target(const HookStep& step, const SiteProgram::Slot& slot, std::size_t token, double activation) const;
  template <class Counts>
  std::vector<float> solve(const dsl::Site& site, const SiteProgram& program, const Reading& reading,
                           Counts counts) const;
  void record(const SiteProgram& program, const Reading& reading, std::span<const float> relative_change,
              const model::PackedLayout& layout);
  ConditionSet::Evaluation& conditions(const model::PackedLayout& layout);

  const HookProgram& program_;
  const ControlChange* control_ = nullptr;
  const PassPerturbation* perturbation_ = nullptr;
  const Ablated* ablated_ = nullptr;
  bool measure_ = false;
  std::vector<RowMemory*> rows_;
  std::unique_ptr<ConditionSet::Evaluation> conditions_;
  std::unordered_map<dsl::FeatureId, std::vector<float>> activations_;
  std::map<dsl::Site, std::vector<float>> norms_, change_norms_;
  std::map<dsl::Site, at::Tensor> captured_;
  std::map<FeaturePlace, std::vector<float>> products_;
  std::vector<StepRecord> steps_;
  std::unique_ptr<ReplacementPass> replacing_;
  std::map<dsl::Site, std::shared_ptr<Solver>> solvers_;  // inverses by active set, kept between passes
};

}  // namespace proviso::runtime

#include "runtime/cost.hpp"

#include <algorithm>

#include "dsl/condition_logic.hpp"
#include "runtime/model/family.hpp"

namespace proviso::runtime {

namespace {

bool of_mlp(model::TensorRole role) {
  return role == model::TensorRole::gate || role == model::TensorRole::up || role == model::TensorRole::down;
}

/// How much of the layers a pass has computed where it stops, the last of them in its two parts.
struct Reached {
  double layers = 0;
  bool attention = false, mlp = false;
};

Reached reached(const dsl::Site& site) {
  switch (site.kind) {
    case dsl::SiteKind::embed:
      return {};
    case dsl::SiteKind::resid_pre:
      return {static_cast<double>(site.layer), false, false};
    case dsl::SiteKind::q:
    case dsl::SiteKind::k:
    case dsl::SiteKind::v:
    case dsl::SiteKind::pattern:
    case dsl::SiteKind::z:
    case dsl::SiteKind::attn_out:
    case dsl::SiteKind::resid_mid:
      return {static_cast<double>(site.layer), true, false};
    default:
      return {static_cast<double>(site.layer), true, true};
  }
}

}  // namespace

PassCost::PassCost(const model::ModelConfig& config) : layers_(static_cast<double>(config.layers)) {
  for (const auto& tensor : model::family_table(config.family).tensors) {
    if (!tensor.layered() || tensor.in == model::Dimension::none || !tensor.present(config)) continue;
    const double products = 2.0 * static_cast<double>(model::size_of(tensor.out, config)) *
                            static_cast<double>(model::size_of(tensor.in, config));
    (of_mlp(tensor.role) ? mlp_ : attention_) += products;
  }
  pair_ = 4.0 * static_cast<double>(config.query_width());  // a score, and a share of a value
  logits_ = 2.0 * static_cast<double>(config.width) * static_cast<double>(config.vocabulary);
}

namespace {

void add(PassCost::Work& work, std::int64_t from, std::int64_t to) {  // positions from … to − 1
  work.tokens += to - from;
  work.pairs += (to * (to + 1) - from * (from + 1)) / 2;
}

}  // namespace

PassCost::Work PassCost::work(const Run& run, const Plan& plan) {
  Work work;
  for (const Batch& batch : run.batches) {
    if (batch.shared_prefix > 0) add(work, 0, batch.shared_prefix);
    for (const SequenceId id : batch.sequences) add(work, batch.shared_prefix, std::ssize(plan.sequences[id].tokens));
  }
  for (const auto& [sequence, wants] : run.wants) {
    work.logits += wants.kl ? std::ssize(plan.sequences[sequence].tokens) : std::ssize(wants.logits);
  }
  return work;
}

PassCost::Work PassCost::work(const GenerationKey& key, const Plan& plan) {
  Work one;
  add(one, 0, std::ssize(plan.sequences[key.sequence].tokens) + key.tokens - 1);  // the last is not read again
  return {one.tokens * key.samples, one.pairs * key.samples, key.tokens * key.samples};
}

PassCost::Work PassCost::work(const BoundPrompts& prompts) {
  Work work;
  for (const BoundPrompt& prompt : prompts) add(work, 0, std::ssize(prompt.tokens));
  return work;
}

double PassCost::of(const Work& work, const std::optional<dsl::Site>& stop_after) const {
  const bool whole = !stop_after || stop_after->kind == dsl::SiteKind::final_norm;
  const Reached last = whole ? Reached{layers_, false, false} : reached(*stop_after);
  const double attended = last.layers + (last.attention ? 1 : 0), widened = last.layers + (last.mlp ? 1 : 0);
  const auto tokens = static_cast<double>(work.tokens), pairs = static_cast<double>(work.pairs);
  return tokens * (attended * attention_ + widened * mlp_) + pairs * attended * pair_ +
         static_cast<double>(work.logits) * logits_;
}

double PassCost::hooks(const PlannedSentence& sentence, const BoundRules& bound) {
  double flops = 0;
  for (const dsl::Site& site : sentence.hooks) flops += 4.0 * static_cast<double>(bound.card->site_width(site));
  if (sentence.sentence.condition && !sentence.hooks.empty()) {
    for (const dsl::FeatureId feature : dsl::features_read(*sentence.sentence.condition)) {
      flops += 2.0 * static_cast<double>(bound.card->site_width(bound.feature_sites[feature]));
    }
  }
  return flops;
}

}  // namespace proviso::runtime

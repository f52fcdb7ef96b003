#include "runtime/hooks.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "editing/fold.hpp"

namespace proviso::runtime {

namespace {

// The Gram matrix holds the squares of the directions' singular values.
constexpr double kGramCutoff = editing::kPseudoInverseCutOff * editing::kPseudoInverseCutOff;
constexpr std::size_t kMaxCachedInverses = 1 << 16;

/// The activation that one sentence asks for where it is active; a `cap` asks only when it is exceeded.
double target_of(const HookStep& step, double activation) {
  switch (step.operation) {
    case dsl::Operation::suppress:
      return (1 - step.amount) * activation;
    case dsl::Operation::amplify:
      return step.amount * activation;
    case dsl::Operation::clamp:
      return step.amount;
    case dsl::Operation::steer:
      return activation + step.amount;
    case dsl::Operation::cap:
      return std::min(activation, step.amount);
  }
  return activation;
}

/// What the sentences active on one feature at one token ask for together: equal targets count once, a
/// `cap` bounds what the others ask for, and unequal ones meet in the least-squares solution, their mean.
class JointTarget {
 public:
  void add(const HookStep& step, double target) {
    if (step.operation == dsl::Operation::cap) {
      cap_ = std::min(cap_, step.amount);
    } else if (std::find(targets_.begin(), targets_.end(), target) == targets_.end()) {
      targets_.push_back(target);
    }
  }
  double value(double activation) const {
    double target = activation;
    if (!targets_.empty()) {
      target = 0;
      for (double t : targets_) target += t / static_cast<double>(targets_.size());
    }
    return std::min(target, cap_);
  }
  void clear() {
    targets_.clear();
    cap_ = std::numeric_limits<double>::infinity();
  }

 private:
  std::vector<double> targets_;
  double cap_ = std::numeric_limits<double>::infinity();
};

std::int64_t head_begin(const model::ModelCard& card, const dsl::Site& site) {
  return site.head < 0 ? 0 : site.head * card.site_width(site);
}

}  // namespace

std::size_t HookProgram::slot(const dsl::Site& site, dsl::FeatureId feature) {
  auto& slots = sites_[dsl::whole(site)].slots;
  const auto found = std::find_if(slots.begin(), slots.end(), [&](const SiteProgram::Slot& s) {
    return s.feature == feature && s.head == site.head;
  });
  if (found != slots.end()) return static_cast<std::size_t>(found - slots.begin());
  const Direction& direction = features_[feature];
  const bool carried = direction.latent && site != direction.site;
  slots.push_back({feature, site.head, direction.offset_at(site), direction.c, false, carried});
  const std::size_t index = slots.size() - 1;
  if (carried) read(feature);
  return index;
}

void HookProgram::read(dsl::FeatureId feature) {
  const dsl::Site& site = features_[feature].site;
  const std::size_t index = slot(site, feature);
  sites_[dsl::whole(site)].slots[index].read = true;
}

void HookProgram::keep_product(const FeaturePlace& place) {
  slot(place.first, place.second);
  kept_products_.insert(place);
}

std::size_t HookProgram::add(const dsl::Intervention& sentence, const std::vector<dsl::Site>& sites, bool of_change,
                             const ConditionSet::TokenId& token_id, const ConditionSet::QuantileValue& quantile) {
  std::optional<std::size_t> condition;
  std::vector<std::size_t> branches;
  if (sentence.condition) {
    condition = conditions_.add(*sentence.condition, token_id, quantile);
    for (dsl::FeatureId feature : conditions_.reads(*condition)) read(feature);
    if (const auto* either = std::get_if<dsl::Or>(&sentence.condition->node)) {
      for (const auto& branch : either->of) branches.push_back(conditions_.add(*branch, token_id, quantile));
    }
  }
  const std::size_t first = step_count_;
  for (const dsl::Site& site : sites) {
    const std::size_t at = slot(site, sentence.feature);
    sites_[dsl::whole(site)].steps.push_back(
        {step_count_++, at, sentence.operation, sentence.feature, sentence.amount, condition, branches, of_change});
  }
  return first;
}

void HookProgram::finish(at::Device device) {
  for (auto& [site, program] : sites_) {
    auto rows = at::zeros({static_cast<std::int64_t>(program.slots.size()), card_.site_width(site)}, at::kDouble);
    std::vector<std::int64_t> along;
    for (std::size_t i = 0; i < program.slots.size(); ++i) {
      const auto& slot = program.slots[i];
      dsl::Site where = site;
      where.head = slot.head;
      const Direction& feature = features_[slot.feature];
      program.is_latent.push_back(feature.latent.has_value());
      const std::int64_t begin = head_begin(card_, where);
      if (feature.latent) {
        if (!slot.carried) add_latent(program, i, *feature.latent, begin);
        if (where != feature.latent->autoencoder->card().written) continue;  // a transcoder's: is only read here
      } else {
        along.push_back(static_cast<std::int64_t>(i));
      }
      const double length = feature.latent ? feature.latent->length : 1;
      rows[static_cast<std::int64_t>(i)].narrow(0, begin, feature.d.size(0)).copy_(feature.d * length);
    }
    program.gram = rows.matmul(rows.t());
    program.directions = rows.to(at::kFloat).to(device);
    if (along.size() == program.slots.size()) continue;
    program.along = at::tensor(along, at::kLong).to(device);
    for (auto& encoder : program.encoders) {
      std::vector<std::int64_t> latents;
      for (const std::size_t slot : encoder.slots)
        latents.push_back(features_[program.slots[slot].feature].latent->index);
      encoder.latents = at::tensor(latents, at::kLong).to(device);
    }
  }
}

void HookProgram::add_latent(SiteProgram& program, std::size_t slot, const LatentOf& latent, std::int64_t begin) {
  auto encoder = std::ranges::find(program.encoders, latent.autoencoder, &SiteProgram::Encoder::autoencoder);
  if (encoder == program.encoders.end())
    encoder = program.encoders.insert(encoder, {latent.autoencoder, begin, {}, {}});
  encoder->slots.push_back(slot);
}

/// Solves for the least change that gives an active set its targets. Inverses are kept by active set:
/// a fresh factorisation a token would cost more than the layer.
struct HookPass::Solver {
  explicit Solver(const at::Tensor& gram) : gram(gram) {}

  // [s, s] row-major, over the active slots in order
  const std::vector<double>& inverse(const std::vector<std::int64_t>& active) {
    key.assign(reinterpret_cast<const char*>(active.data()), active.size() * sizeof(active[0]));
    auto found = inverses.find(key);
    if (found != inverses.end()) return found->second;
    if (inverses.size() >= kMaxCachedInverses) inverses.clear();
    const auto index = at::tensor(active, at::kLong);
    const auto block = gram.index_select(0, index).index_select(1, index);
    const auto pinv = at::linalg_pinv(block, kGramCutoff, /*hermitian=*/true).contiguous();
    const auto* data = pinv.const_data_ptr<double>();
    return inverses.emplace(key, std::vector<double>(data, data + pinv.numel())).first->second;
  }

  at::Tensor gram;
  std::unordered_map<std::string, std::vector<double>> inverses;
  std::string key;
};

HookPass::HookPass(const HookProgram& program) : program_(program), steps_(program.step_count_) {
  if (program_.replacements_) replacing_ = std::make_unique<ReplacementPass>(*program_.replacements_);
  for (const auto& [site, site_program] : program_.sites_) {
    if (!site_program.steps.empty()) solvers_[site] = std::make_shared<Solver>(site_program.gram);
  }
}

void HookPass::begin(std::vector<RowMemory*> rows) {
  rows_ = std::move(rows);
  conditions_.reset();
  activations_.clear();
  norms_.clear();
  change_norms_.clear();
  captured_.clear();
  products_.clear();
  if (replacing_) replacing_->begin();
}

model::StreamReader* HookPass::reader() {
  return replacing_ && program_.replacements_->has_edges() ? replacing_.get() : nullptr;
}

std::map<dsl::Site, std::vector<float>> HookPass::change_norms() const {
  auto norms = change_norms_;
  if (replacing_) norms.insert(replacing_->change_norms().begin(), replacing_->change_norms().end());
  return norms;
}

ConditionSet::Evaluation& HookPass::conditions(const model::PackedLayout& layout) {
  if (!conditions_) {
    conditions_ = std::make_unique<ConditionSet::Evaluation>(
        program_.conditions(), layout, rows_, [this](dsl::FeatureId feature) { return activation(feature); });
  }
  return *conditions_;
}

bool HookPass::wants(const dsl::Site& site) const {
  if (replacing_ && replacing_->wants(site)) return true;
  if (perturbation_ && perturbation_->site == site) return true;
  return program_.sites_.contains(site) || program_.norm_sites_.contains(site) || program_.captured_.contains(site);
}

std::span<const float> HookPass::activation(dsl::FeatureId feature) const { return activations_.at(feature); }
std::span<const float> HookPass::norm(const dsl::Site& site) const { return norms_.at(site); }

void HookPass::visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout) {
  if (program_.captured_.contains(site)) captured_[site] = x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  if (program_.norm_sites_.contains(site)) {
    const auto norms = at::linalg_vector_norm(x.to(at::kFloat), 2, at::IntArrayRef{1}).cpu().contiguous();
    const auto* data = norms.const_data_ptr<float>();
    norms_[site].assign(data, data + norms.numel());
  }
  run_program(site, x, layout);
  if (replacing_ && replacing_->wants(site)) {
    replacing_->visit(site, x, layout,
                      [&](std::size_t condition) -> const Mask& { return conditions(layout).holds(condition); });
  }
  if (perturbation_ && perturbation_->site == site) x = perturbed(x, perturbation_->directions, perturbation_->share);
}

void HookPass::run_program(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout) {
  const auto found = program_.sites_.find(site);
  if (found == program_.sites_.end()) return;
  const SiteProgram& program = found->second;

  const Reading reading = read(program, x);
  for (std::size_t s = 0; s < reading.slots; ++s) {
    const auto& slot = program.slots[s];
    const FeaturePlace place{{site.kind, site.layer, slot.head}, slot.feature};
    if (program_.kept_products_.contains(place)) {
      auto& products = products_[place];  // the logits come in several calls
      for (std::size_t i = 0; i < reading.size(); ++i) products.push_back(reading.products[i * reading.slots + s]);
    }
    if (!slot.read) continue;
    auto& activation = activations_[slot.feature];
    activation.resize(reading.size());
    for (std::size_t i = 0; i < activation.size(); ++i) {
      activation[i] = static_cast<float>((reading.products[i * reading.slots + s] - slot.b) / slot.c);
    }
  }
  if (!program.steps.empty()) write(site, program, reading, x, layout);
}

HookPass::Reading HookPass::read(const SiteProgram& program, const at::Tensor& x) const {
  const auto values = x.to(at::kFloat);
  const auto slots = static_cast<std::int64_t>(program.slots.size());
  const auto kept = [](const at::Tensor& all) {
    const auto here = all.cpu().contiguous();
    return std::vector<float>(here.const_data_ptr<float>(), here.const_data_ptr<float>() + here.numel());
  };
  Reading reading;
  reading.slots = program.slots.size();
  if (!program.along.defined()) {
    reading.products = kept(values.matmul(program.directions.t()));
    return reading;
  }
  auto products = at::zeros({x.size(0), slots}, values.options());
  auto scales = at::ones({x.size(0), slots}, values.options());
  bool scaled = false;
  if (program.along.numel() > 0)
    products.index_copy_(1, program.along, values.matmul(program.directions.index_select(0, program.along).t()));
  for (const auto& encoder : program.encoders) {
    const auto encoded =
        encoder.autoencoder->encode(values.narrow(1, encoder.begin, encoder.autoencoder->card().d_in), encoder.latents);
    const std::vector<std::int64_t> columns(encoder.slots.begin(), encoder.slots.end());
    const auto where = at::tensor(columns, at::kLong).to(x.device());
    products.index_copy_(1, where, encoded.activations);
    if (!encoded.scale.defined()) continue;
    scaled = true;
    scales.index_copy_(1, where, encoded.scale.unsqueeze(1).expand({x.size(0), where.size(0)}).contiguous());
  }
  reading.products = kept(products);
  for (std::size_t s = 0; s < reading.slots; ++s) {
    if (!program.slots[s].carried) continue;
    const auto read = activation(program.slots[s].feature);
    for (std::size_t i = 0; i < read.size(); ++i) reading.products[i * reading.slots + s] = read[i];
  }
  if (scaled) reading.scales = kept(scales);
  return reading;
}

/// The change of every token as coefficients of the site's directions, [n, slots] row-major. Latents change by what
/// they are asked to, which leaves the autoencoder's error as it is; then the least change is added that gives the
/// directions of the active steps their joint targets. Only steps that `counts` take part.
template <class Counts>
std::vector<float> HookPass::solve(const dsl::Site& site, const SiteProgram& program, const Reading& reading,
                                   Counts counts) const {
  const std::size_t slots = reading.slots;
  const std::size_t n = reading.size();
  const double* gram = program.gram.const_data_ptr<double>();
  Solver& solver = *solvers_.at(site);
  std::vector<float> coefficients(reading.products.size(), 0.0F);
  std::vector<JointTarget> targets(slots);
  std::vector<std::uint8_t> is_active(slots);
  std::vector<std::int64_t> active, latents;
  std::vector<double> wanted;  // c (target − activation) of the active slots, less what latents bring
  for (std::size_t i = 0; i < n; ++i) {
    const float* row = reading.products.data() + i * slots;
    float* out = coefficients.data() + i * slots;
    const auto activation = [&](std::size_t s) { return (row[s] - program.slots[s].b) / program.slots[s].c; };
    std::fill(is_active.begin(), is_active.end(), 0);
    for (const HookStep& step : program.steps) {
      if (!counts(step) || !steps_[step.number].fired[i]) continue;
      if (!is_active[step.slot]) targets[step.slot].clear();
      is_active[step.slot] = 1;
      targets[step.slot].add(step, target(step, program.slots[step.slot], i, activation(step.slot)));
    }
    active.clear();
    latents.clear();
    wanted.clear();
    for (std::size_t s = 0; s < slots; ++s) {
      if (!is_active[s]) continue;
      const double change = program.slots[s].c * (targets[s].value(activation(s)) - activation(s));
      if (program.is_latent[s]) {
        out[s] = static_cast<float>(change * (reading.scales.empty() ? 1 : reading.scales[i * slots + s]));
        latents.push_back(static_cast<std::int64_t>(s));
      } else {
        active.push_back(static_cast<std::int64_t>(s));
        wanted.push_back(change);
      }
    }
    for (const std::int64_t latent : latents) {
      for (std::size_t q = 0; q < active.size(); ++q) wanted[q] -= out[latent] * gram[active[q] * slots + latent];
    }
    if (std::all_of(wanted.begin(), wanted.end(), [](double w) { return w == 0; })) continue;
    if (active.size() == 1) {
      out[active[0]] = static_cast<float>(wanted[0]);
      continue;
    }
    const auto& inverse = solver.inverse(active);
    for (std::size_t r = 0; r < active.size(); ++r) {
      double coefficient = 0;
      for (std::size_t q = 0; q < active.size(); ++q) coefficient += inverse[r * active.size() + q] * wanted[q];
      out[active[r]] = static_cast<float>(coefficient);
    }
  }
  return coefficients;
}

void HookPass::write(const dsl::Site& site, const SiteProgram& program, const Reading& reading, at::Tensor& x,
                     const model::PackedLayout& layout) {
  conditions(layout);
  const std::int64_t n = layout.size();
  const auto slots = static_cast<std::int64_t>(program.slots.size());
  for (const HookStep& step : program.steps) {
    steps_[step.number].fired =
        step.condition ? conditions_->holds(*step.condition) : Mask(static_cast<std::size_t>(n), 1);
  }
  const bool exchanges = control_ && control_->kind != ControlKind::direction;
  if (ablated_ && (!control_ || exchanges)) ask_ablated(site, program, layout);
  const bool has_change =
      std::any_of(program.steps.begin(), program.steps.end(), [](const HookStep& step) { return step.of_change; });
  const auto without_change = [](const HookStep& step) { return !step.of_change; };
  auto coefficients = control_ ? solve(site, program, reading, without_change)
                               : solve(site, program, reading, [](const HookStep&) { return true; });
  const auto as_tensor = [&](std::vector<float>& values) {
    return at::from_blob(values.data(), {n, slots}, at::kFloat);
  };
  const auto lengths = [&](const at::Tensor& of) {  // ‖Dᵀ g‖ of each row g
    const auto g = of.to(at::kDouble);
    return (g.matmul(program.gram) * g).sum(1).clamp_min(0).sqrt().to(at::kFloat).contiguous();
  };
  const auto to_vector = [n](const at::Tensor& values) {
    const auto* data = values.const_data_ptr<float>();
    return std::vector<float>(data, data + n);
  };

  if (has_change && exchanges) {
    auto all = solve(site, program, reading, [](const HookStep&) { return true; });
    const auto change = control_->exchanged(as_tensor(all) - as_tensor(coefficients), layout);
    as_tensor(coefficients).add_(change);
  }
  // What an effect's change adds to the rest: a change that asks for what is asked for already adds nothing.
  at::Tensor added;
  if (has_change && !control_) {
    auto others = solve(site, program, reading, without_change);
    added = as_tensor(coefficients) - as_tensor(others);
  }
  std::vector<float> relative;
  if (measure_) {
    const auto size = at::linalg_vector_norm(x.to(at::kFloat), 2, at::IntArrayRef{1}).cpu();
    relative = to_vector((lengths(as_tensor(coefficients)) / size.clamp_min(1e-30)).contiguous());
    if (added.defined()) change_norms_[site] = to_vector(lengths(added));
  }
  record(program, reading, relative, layout);
  if (added.defined()) {
    const auto adds = added.ne(0).any(1).contiguous();
    for (const HookStep& step : program.steps) {
      Mask& moved = steps_[step.number].moved;
      for (std::size_t i = 0; step.of_change && i < moved.size(); ++i)
        moved[i] = moved[i] && adds.const_data_ptr<bool>()[i];
    }
  }

  std::vector<std::int64_t> changed;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto* row = coefficients.data() + i * slots;
    if (std::any_of(row, row + slots, [](float value) { return value != 0; })) changed.push_back(i);
  }
  // Untouched rows stay as they are, bit for bit.
  if (!changed.empty()) {
    const auto index = at::tensor(changed, at::kLong);
    const bool all = static_cast<std::int64_t>(changed.size()) == n;
    const auto rows = all ? as_tensor(coefficients) : as_tensor(coefficients).index_select(0, index);
    const auto change = rows.to(x.device()).matmul(program.directions);  // [changed, width]
    if (all && x.scalar_type() == at::kFloat) {
      x.add_(change);
    } else {
      const auto where = index.to(x.device());
      x.index_copy_(0, where, (x.index_select(0, where).to(at::kFloat) + change).to(x.scalar_type()));
    }
  }
  if (!control_ || exchanges) return;
  const auto found = control_->norms.find(site);
  if (found == control_->norms.end()) return;
  const auto length = at::tensor(found->second, at::kFloat).to(x.device()).unsqueeze(1);  // [n, 1]
  x = (x.to(at::kFloat) + length * control_->direction(site, x.size(1)).to(x.device())).to(x.scalar_type());
}

void HookPass::ask_ablated(const dsl::Site& site, const SiteProgram& program, const model::PackedLayout& layout) {
  const at::Tensor rows = layout.row_of.cpu(), positions = layout.positions.cpu();
  for (const HookStep& step : program.steps) {
    if (!step.of_change) continue;
    const FeaturePlace place{{site.kind, site.layer, program.slots[step.slot].head}, step.feature};
    auto& products = steps_[step.number].products;
    products.resize(static_cast<std::size_t>(layout.size()));
    for (std::size_t i = 0; i < products.size(); ++i) {
      products[i] = (*ablated_)(place, static_cast<std::size_t>(rows.const_data_ptr<std::int64_t>()[i]),
                                positions.const_data_ptr<std::int64_t>()[i]);
    }
  }
}

double HookPass::target(const HookStep& step, const SiteProgram::Slot& slot, std::size_t token,
                        double activation) const {
  const auto& products = steps_[step.number].products;
  return products.empty() ? target_of(step, activation) : (products[token] - slot.b) / slot.c;
}

/// Counts what the steps at one site did; position 0 stays out of all but `relative_change_at_0`.
void HookPass::record(const SiteProgram& program, const Reading& reading, std::span<const float> relative_change,
                      const model::PackedLayout& layout) {
  for (const HookStep& step : program.steps) {
    const auto& slot = program.slots[step.slot];
    StepRecord& record = steps_[step.number];
    Activity& activity = record.activity;
    record.moved.assign(record.fired.size(), 0);
    activity.branches.resize(step.branches.size());
    for (std::size_t b = 0; b < step.branches.size(); ++b) {
      const Mask& holds = conditions_->holds(step.branches[b]);
      for (const auto& span : layout.rows) {
        for (std::int64_t j = span.first_position == 0 ? 1 : 0; j < span.length; ++j)
          activity.branches[b] += holds[span.begin + j];
      }
    }
    for (const auto& span : layout.rows) {
      for (std::int64_t j = 0; j < span.length; ++j) {
        const std::int64_t i = span.begin + j;
        const bool holds = record.fired[i];
        const double activation = (reading.products[i * reading.slots + step.slot] - slot.b) / slot.c;
        record.moved[i] = holds && target(step, slot, static_cast<std::size_t>(i), activation) != activation;
        const double change = holds && !relative_change.empty() ? relative_change[i] : 0;
        if (span.first_position + j == 0) {
          ++activity.firsts;
          activity.relative_change_at_0 += change;
          continue;
        }
        activity.max = activity.positions == 0 ? activation : std::max(activity.max, activation);
        ++activity.positions;
        activity.sum += activation;
        activity.active += holds;
        activity.relative_change += change;
      }
    }
  }
}

}  // namespace proviso::runtime

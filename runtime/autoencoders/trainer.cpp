#include "runtime/autoencoders/trainer.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>

#include "dsl/number_text.hpp"
#include "runtime/autoencoders/sparse_products.hpp"
#include "runtime/autoencoders/training_state.hpp"
#include "runtime/model/random.hpp"

namespace proviso::runtime {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
constexpr double kThresholdRate = 0.01;       // as SAELens' BatchTopK
constexpr std::int64_t kMostOfOneVector = 4;  // times k, of BatchTopK
constexpr double kRecent = 0.95;              // weight of the batch before, in what progress tells
constexpr std::int64_t kRowsSummed = 65'536;
constexpr std::int64_t kInMemory = 1 << 28;  // numbers: 1 GiB
constexpr float kLongest = 1 << 24;          // counted exactly in float32

class Trainer {
 public:
  Trainer(const model::Transformer& transformer, const TextRows& texts, const TrainingSettings& settings,
          const Progress& progress)
      : transformer_(transformer),
        settings_(settings),
        progress_(progress),
        device_(transformer.options().device),
        in_memory_(settings.in_memory > 0 ? settings.in_memory
                                          : kInMemory / transformer.card().site_width(settings.site)),
        pool_(transformer, settings.site, texts.rows, in_memory_, settings.seed, progress),
        steps_(std::max<std::int64_t>(1, settings.vectors / settings.batch)),
        learning_rate_(settings.learning_rate > 0 ? settings.learning_rate
                                                  : 1e-3 * std::sqrt(4096.0 / static_cast<double>(settings.latents))),
        dead_after_(settings.dead_after > 0 ? settings.dead_after
                                            : std::min<std::int64_t>(settings.vectors / 10, 10'000'000)) {
    identity_ = {{"site", dsl::to_string(settings.site)},
                 {"latents", std::to_string(settings.latents)},
                 {"k", std::to_string(settings.k)},
                 {"architecture", std::string(sparsity_name(settings.sparsity))},
                 {"tokens", std::to_string(settings.vectors)},
                 {"batch", std::to_string(settings.batch)},
                 {"in_memory", std::to_string(in_memory_)},
                 {"seed", std::to_string(settings.seed)},
                 {"model", settings.model_sha256},
                 {"text", texts.sha256},
                 {"rows", std::to_string(texts.rows.size())},
                 {"learning_rate", dsl::number_text(learning_rate_)},
                 {"warm_up", dsl::number_text(settings.warm_up)},
                 {"decay", dsl::number_text(settings.decay)},
                 {"dead_weight", dsl::number_text(settings.dead_weight)},
                 {"dtype", at::toString(transformer.options().dtype)},
                 {"device", device_.str()},
                 {"dead_after", std::to_string(dead_after_)}};
    if (settings.sparsity == Sparsity::jumprelu) {
      identity_["penalty"] = dsl::number_text(settings.penalty);
      identity_["bandwidth"] = dsl::number_text(settings.bandwidth);
    }
  }

  Training run() {
    const at::NoGradGuard no_grad;
    const auto started = Clock::now();
    begin();
    const std::int64_t first = s_.step;
    auto kept = Clock::now();
    const auto learning = Clock::now();
    while (s_.step < steps_) {
      step(pool_.next(settings_.batch).to(device_) * s_.scale);
      s_.place = pool_.place();
      if (!settings_.checkpoint.empty() && seconds_since(kept) > settings_.checkpoint_seconds) {
        write_training_state(settings_.checkpoint, s_, identity_);
        kept = Clock::now();
      }
      if (progress_) tell((s_.step - first) * settings_.batch, seconds_since(learning));
    }
    if (progress_) progress_({}, steps_, steps_);
    Training training;
    training.autoencoder = result();
    training.steps = steps_;
    training.vectors = steps_ * settings_.batch;
    training.learning_rate = learning_rate_;
    training.dead_after = dead_after_;
    training.variance_explained = variance_explained();
    training.dead = s_.since.ge(static_cast<double>(dead_after_)).sum().item<std::int64_t>();
    training.seconds = seconds_since(started);
    training.trained_here = (steps_ - first) * settings_.batch;
    return training;
  }

 private:
  void begin() {
    if (settings_.resume) {
      s_ = read_training_state(settings_.checkpoint, identity_, device_);
      pool_.go_to(s_.place);
      return;
    }
    const auto& vectors = pool_.here();
    const std::int64_t d = vectors.size(1);
    // In float64 a part at a time: all of them would take twice their memory again.
    double square = 0;
    auto mean = at::zeros({d}, at::kDouble);
    for (const auto& part : vectors.split(kRowsSummed)) {
      const auto exact = part.to(at::kDouble);
      square += exact.square().sum().item<double>();
      mean += exact.sum(0).cpu();
    }
    square /= static_cast<double>(vectors.numel());
    mean /= static_cast<double>(vectors.size(0));
    if (!std::isfinite(square) || square == 0)
      throw model::InputError("the activations at " + dsl::to_string(settings_.site) + " are zero or no numbers");
    s_.scale = 1 / std::sqrt(square);
    s_.variance = s_.scale * s_.scale * (static_cast<double>(d) * square - mean.square().sum().item<double>());
    s_.b_dec = (mean * s_.scale).to(at::kFloat).to(device_);
    model::NormalSource source(model::mix_seed(settings_.seed, 7));
    auto rows = at::empty({settings_.latents, d}, at::kFloat);
    auto* values = rows.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < rows.numel(); ++i) values[i] = static_cast<float>(source.next());
    s_.W_dec = (rows / rows.norm(2, 1, true)).to(device_).contiguous();
    s_.W_enc = s_.W_dec.clone();
    s_.b_enc = at::zeros({settings_.latents}, s_.W_dec.options());
    if (settings_.sparsity == Sparsity::jumprelu) s_.log_threshold = first_threshold(vectors).log();
    for (const auto& parameter : s_.parameters()) {
      s_.means.push_back(at::zeros_like(parameter));
      s_.squares.push_back(at::zeros_like(parameter));
    }
    s_.steps = at::zeros({}, at::device(device_).dtype(at::kFloat));
    s_.since = at::zeros_like(s_.b_enc);
  }

  /// What k latents of each vector exceed on the mean, before anything is learnt: [latents].
  at::Tensor first_threshold(const at::Tensor& vectors) const {
    const auto some = vectors.narrow(0, 0, std::min(settings_.batch, vectors.size(0))).to(device_) * s_.scale;
    const auto before = (some - s_.b_dec).matmul(s_.W_enc.t()).flatten();
    const auto edge = std::get<0>(before.topk(settings_.k * some.size(0))).min().clamp_min(1e-3);
    return edge.expand({settings_.latents}).clone();
  }

  struct Fired {
    at::Tensor values, index;  // [n, m]
  };

  /// Of mean ‖x̂ − x‖² over a batch, and what else a step needs to know.
  struct Gradients {
    at::Tensor enc, dec, b_enc, b_dec, log_threshold;
    at::Tensor h, before, error;  // [n, d], [n, latents] (bfloat16 where that decides), [n, d]
    at::Tensor fired;             // latents, some several times
  };

  Fired choose(const at::Tensor& h, const at::Tensor& before) {
    const auto most = over_batch() ? std::min(kMostOfOneVector * settings_.k, settings_.latents) : settings_.k;
    auto [values, index] = largest(before, most);
    if (half_precision())
      values = row_products(h, index, s_.W_enc) + s_.b_enc.index_select(0, index.flatten()).view_as(values);
    values = values.relu();
    if (!over_batch()) return {values, index};
    const auto kept = std::get<0>(values.flatten().topk(settings_.k * values.size(0)));
    const double least = kept[-1].item<double>();
    values = at::where(values.ge(least), values, 0);
    if (const auto firing = kept.masked_select(kept.gt(0)); firing.numel() > 0) {
      const double edge = firing.min().item<double>();
      s_.threshold = s_.threshold == 0 ? edge : (1 - kThresholdRate) * s_.threshold + kThresholdRate * edge;
    }
    return {values, index};
  }

  /// The one dense product of a step. In bfloat16 it decides which latents fire; what they come to is then computed in
  /// float32, as all gradients are.
  at::Tensor before_activation(const at::Tensor& h) const {
    if (!half_precision()) return at::addmm(s_.b_enc, h, s_.W_enc.t());
    return at::linear(h.to(at::kBFloat16), s_.W_enc.to(at::kBFloat16), s_.b_enc.to(at::kBFloat16));
  }

  bool half_precision() const { return transformer_.options().dtype == at::kBFloat16; }
  bool over_batch() const { return settings_.sparsity == Sparsity::batch_topk; }

  Gradients of_largest(const at::Tensor& x) {
    Gradients g;
    g.h = x - s_.b_dec;
    g.before = before_activation(g.h);
    const auto [f, index] = choose(g.h, g.before);
    g.error = sparse_decode(f, index, s_.W_dec) + s_.b_dec - x;
    const auto d_out = g.error * (2 / static_cast<double>(x.size(0)));
    const auto d_f = row_products(d_out, index, s_.W_dec) * f.gt(0);
    g.dec = sparse_gradient(f, index, d_out, settings_.latents);
    g.enc = sparse_gradient(d_f, index, g.h, settings_.latents);
    g.b_enc = at::zeros_like(s_.b_enc).scatter_add_(0, index.flatten(), d_f.flatten());
    g.b_dec = d_out.sum(0) - g.b_enc.matmul(s_.W_enc);
    g.fired = index.masked_select(f.gt(0));
    return g;
  }

  /// f = z·H(z − θ). The jump has no gradient in θ; the paper's estimators (equations 11 and 12) put a rectangle K of
  /// width ε in its place: ∂f/∂θ = −(θ/ε)·K((z − θ)/ε) and ∂H/∂θ = −(1/ε)·K((z − θ)/ε). θ is learnt by its logarithm.
  Gradients of_thresholds(const at::Tensor& x) const {
    const auto n = static_cast<double>(x.size(0)), k = static_cast<double>(settings_.k);
    Gradients g;
    g.h = x - s_.b_dec;
    g.before = at::addmm(s_.b_enc, g.h, s_.W_enc.t());
    const auto theta = s_.log_threshold.exp();
    const auto fires = g.before.gt(theta);
    const auto f = g.before * fires;
    g.error = f.matmul(s_.W_dec) + s_.b_dec - x;
    const auto d_out = g.error * (2 / n);
    const auto d_f = d_out.matmul(s_.W_dec.t());
    const double l0 = fires.sum().item<double>() / n;
    const double d_l0 = 2 * settings_.penalty * s_.variance * (l0 / k - 1) / k;
    const auto near = (g.before - theta).abs().lt(settings_.bandwidth / 2);
    g.log_threshold = ((d_f * theta + d_l0 / n) * near).sum(0) * (-1 / settings_.bandwidth) * theta;
    const auto d_z = d_f * fires;
    g.dec = f.t().matmul(d_out);
    g.enc = d_z.t().matmul(g.h);
    g.b_enc = d_z.sum(0);
    g.b_dec = d_out.sum(0) - g.b_enc.matmul(s_.W_enc);
    g.fired = fires.any(0).nonzero().squeeze(1);
    return g;
  }

  /// One step of Adam, with the gradients written out.
  void step(const at::Tensor& x) {
    const auto n = static_cast<double>(x.size(0));
    Gradients g = settings_.sparsity == Sparsity::jumprelu ? of_thresholds(x) : of_largest(x);
    revive(g.h, g.before, g.error, g.dec, g.enc, g.b_enc);

    s_.since.add_(n).clamp_max_(kLongest);
    s_.since.index_fill_(0, g.fired, 0);
    g.dec.sub_((g.dec * s_.W_dec).sum(1, true) * s_.W_dec);  // rows keep their length: what would change it is no use
    std::vector<at::Tensor> gradients = {g.enc, g.dec, g.b_enc, g.b_dec};
    if (g.log_threshold.defined()) gradients.push_back(g.log_threshold);
    const std::vector<at::Tensor> counts(gradients.size(), s_.steps);
    s_.steps.add_(1);
    auto parameters = s_.parameters();
    at::_fused_adamw_(parameters, gradients, s_.means, s_.squares, {}, counts, rate(), kBeta1, kBeta2,
                      /*weight_decay=*/0, kEpsilon, /*amsgrad=*/false, /*maximize=*/false);
    s_.W_dec.div_(s_.W_dec.norm(2, 1, true).clamp_min(1e-12));
    ++s_.step;

    s_.recent_error = kRecent * s_.recent_error + g.error.square().sum().item<double>();
    s_.recent = kRecent * s_.recent + n;
  }

  /// The auxiliary loss: of the latents that no longer fire, the strongest of each vector explain what the others
  /// leave.
  void revive(const at::Tensor& h, const at::Tensor& before, const at::Tensor& error, at::Tensor& g_dec,
              at::Tensor& g_enc, at::Tensor& g_b_enc) {
    const auto dead = s_.since.ge(static_cast<double>(dead_after_)).nonzero().squeeze(1);
    if (dead.numel() == 0 || settings_.dead_weight == 0) return;
    const std::int64_t half = std::max<std::int64_t>(1, h.size(1) / 2);
    const auto [f, index] =
        before.index_select(1, dead).to(at::kFloat).topk(std::min(half, dead.numel()), 1, true, false);
    const auto rows = s_.W_dec.index_select(0, dead);
    const double share = std::min(1.0, static_cast<double>(dead.numel()) / static_cast<double>(half));
    const auto d_out =
        (sparse_decode(f, index, rows) + error) * (2 * settings_.dead_weight * share / static_cast<double>(h.size(0)));
    const auto d_f = row_products(d_out, index, rows);
    g_dec.index_add_(0, dead, sparse_gradient(f, index, d_out, dead.numel()));
    g_enc.index_add_(0, dead, sparse_gradient(d_f, index, h, dead.numel()));
    g_b_enc.index_add_(0, dead, at::zeros_like(dead, d_f.options()).scatter_add_(0, index.flatten(), d_f.flatten()));
  }

  double rate() const {
    const auto done = static_cast<double>(s_.step) + 1, all = static_cast<double>(steps_);
    const double rising = settings_.warm_up > 0 ? done / (settings_.warm_up * all) : 1;
    const double falling = settings_.decay > 0 ? (all - done + 1) / (settings_.decay * all) : 1;
    return learning_rate_ * std::min({1.0, rising, falling});
  }

  double variance_explained() const { return 1 - s_.recent_error / s_.recent / s_.variance; }

  void tell(std::int64_t vectors, double seconds) const {
    char text[96];
    std::snprintf(text, sizeof text, "training: variance explained %.3f, %.0f tokens/s, step", variance_explained(),
                  static_cast<double>(vectors) / std::max(seconds, 1e-9));
    progress_(text, s_.step, steps_);
  }

  std::shared_ptr<const Autoencoder> result() const {
    AutoencoderCard card;
    const bool largest = settings_.sparsity == Sparsity::topk;
    card.architecture = largest ? Architecture::topk : Architecture::jumprelu;
    card.d_in = card.d_out = s_.W_dec.size(1);
    card.d_sae = settings_.latents;
    card.k = largest ? settings_.k : 0;
    card.model_name = transformer_.card().name;
    card.site = card.written = settings_.site;
    Autoencoder::Weights w;
    w.W_enc = s_.W_enc;
    w.W_dec = s_.W_dec;
    w.b_enc = s_.b_enc / s_.scale;
    w.b_dec = s_.b_dec / s_.scale;
    if (over_batch()) w.threshold = at::full_like(w.b_enc, s_.threshold / s_.scale);
    if (s_.log_threshold.defined()) w.threshold = s_.log_threshold.exp() / s_.scale;
    return std::make_shared<const Autoencoder>(std::move(card), std::move(w));
  }

  const model::Transformer& transformer_;
  const TrainingSettings& settings_;
  const Progress& progress_;
  const at::Device device_;
  const std::int64_t in_memory_;
  ActivationPool pool_;
  const std::int64_t steps_;
  const double learning_rate_;
  const std::int64_t dead_after_;
  std::map<std::string, std::string> identity_;
  TrainingState s_;
};

}  // namespace

std::string_view sparsity_name(Sparsity sparsity) {
  constexpr std::string_view kNames[] = {"topk", "batchtopk", "jumprelu"};
  return kNames[static_cast<std::size_t>(sparsity)];
}

Training train_autoencoder(const model::Transformer& transformer, const TextRows& texts,
                           const TrainingSettings& settings, const Progress& progress) {
  if (texts.rows.empty()) throw model::InputError("the text holds no two tokens in a row\n  help: name more text");
  return Trainer(transformer, texts, settings, progress).run();
}

}  // namespace proviso::runtime

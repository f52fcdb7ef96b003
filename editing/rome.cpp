#include "editing/rome.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cmath>
#include <sstream>
#include <string_view>
#include <utility>

#include "editing/value_objective.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

constexpr std::string_view kSlot = "{}";

class Stopwatch {
 public:
  /// Seconds since the last call.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

std::string number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

/// Adam with its usual constants, on one vector.
class Adam {
 public:
  Adam(const at::Tensor& like, double learning_rate)
      : mean_(at::zeros_like(like)), square_(at::zeros_like(like)), learning_rate_(learning_rate) {}

  at::Tensor step(const at::Tensor& gradient) {
    ++count_;
    mean_ = kBeta1 * mean_ + (1 - kBeta1) * gradient;
    square_ = kBeta2 * square_ + (1 - kBeta2) * gradient.square();
    const auto mean = mean_ / (1 - std::pow(kBeta1, count_));
    const auto square = square_ / (1 - std::pow(kBeta2, count_));
    return -learning_rate_ * mean / (square.sqrt() + kEpsilon);
  }

 private:
  static constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
  at::Tensor mean_, square_;
  double learning_rate_;
  int count_ = 0;
};

/// The rewriting prompts, the bare one first, and the one whose next token is to stay.
struct RomePrompts {
  std::vector<SubjectPrompt> rewriting;
  SubjectPrompt anchor;
};

std::variant<RomePrompts, Refusal> make_prompts(const model::Tokenizer& tokenizer, const RomeRequest& request,
                                                const std::vector<std::string>& prefixes) {
  const auto slot = request.prompt_template.find(kSlot);
  const auto before = request.prompt_template.substr(0, slot);
  const auto after = request.prompt_template.substr(slot + kSlot.size());
  RomePrompts prompts;
  prompts.rewriting.push_back(locate_subject(tokenizer, before, request.subject, after));
  if (prompts.rewriting.front().subject_last == 0)
    return Refusal{
        "the subject `" + request.subject +
        "` ends at the prompt's first token, which the model uses as its attention sink: an edit there breaks "
        "the model; begin the template with other words before {}"};
  for (const auto& prefix : prefixes)
    prompts.rewriting.push_back(locate_subject(tokenizer, prefix + ". " + before, request.subject, after));
  prompts.anchor = locate_subject(tokenizer, "", request.subject, " is a");
  // The distribution is read at the subject's last token: what follows it is of no account.
  if (prompts.anchor.subject_last == 0) prompts.anchor = prompts.rewriting.front();
  return prompts;
}

struct OptimisedValue {
  at::Tensor delta;  // [width] float64
  std::vector<double> losses;
  double target_nll = 0, kl = 0;
};

OptimisedValue optimise_value(const ValueObjective& objective, const RomeRequest& request) {
  const at::AutoGradMode gradients(true);
  OptimisedValue result{at::zeros_like(objective.value()), {}};
  Adam adam(result.delta, request.learning_rate);
  const double largest = request.clamp * objective.value().norm().item<double>();
  for (std::int64_t step = 1; step <= request.steps; ++step) {
    auto delta = result.delta.detach().requires_grad_(true);
    const auto loss = objective.loss(delta, request.kl_factor, request.weight_decay);
    result.losses.push_back(loss.total.item<double>());
    result.target_nll = loss.target_nll;
    result.kl = loss.kl;
    if (result.losses.back() < request.early_stop || step == request.steps) break;
    loss.total.backward();
    const at::NoGradGuard no_grad;
    result.delta = result.delta + adam.step(delta.grad());
    if (const double norm = result.delta.norm().item<double>(); norm > largest)
      result.delta = result.delta * (largest / norm);
  }
  return result;
}

/// Adds a low-rank change of the second MLP matrix to what that matrix puts out, without touching weights.
class LowRankWrite : public model::SiteVisitor {
 public:
  LowRankWrite(const WeightDelta& delta, std::int64_t layer) : delta_(delta), layer_(layer) {}
  bool wants(const Site& site) const override {
    return site == Site{SiteKind::mlp_post, layer_} || site == Site{SiteKind::mlp_out, layer_};
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    if (site.kind == SiteKind::mlp_post)
      projections_ = x.to(at::kDouble).mm(delta_.right.t());
    else
      x = (x.to(at::kDouble) + projections_.mm(delta_.left.t())).to(x.dtype());
  }

 private:
  const WeightDelta& delta_;
  std::int64_t layer_;
  at::Tensor projections_;  // [n, rank]
};

struct TargetScore {
  double log_probability = 0;  // of all the target's tokens
  double logit = 0;            // of its first
};

TargetScore score(const model::Transformer& transformer, const SubjectPrompt& prompt,
                  const std::vector<std::int64_t>& target, model::SiteVisitor* visitor) {
  model::Row row{prompt.tokens, std::ssize(prompt.tokens)};
  row.tokens.insert(row.tokens.end(), target.begin(), target.end() - 1);
  const std::vector<model::Row> rows{std::move(row)};
  std::vector<std::int64_t> logits_at(target.size());
  for (std::size_t i = 0; i < target.size(); ++i)
    logits_at[i] = rows[0].prompt_length - 1 + static_cast<std::int64_t>(i);
  TargetScore result;
  model::Pass pass;
  pass.rows = &rows;
  pass.visitor = visitor;
  pass.logits_at = logits_at;
  pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
    for (std::int64_t i = 0; i < logits.size(0); ++i) {
      const auto token = target[first + i];
      result.log_probability += logits[i].to(at::kDouble).log_softmax(-1)[token].item<double>();
      if (first + i == 0) result.logit = logits[i][token].item<double>();
    }
  };
  transformer.forward(pass);
  return result;
}

at::Tensor gradient(const at::Tensor& value, const at::Tensor& of) {
  of.mutable_grad() = at::Tensor();
  value.backward({}, /*retain_graph=*/true);
  return of.grad();
}

}  // namespace

std::int64_t default_rome_layer(const model::ModelConfig& config) {
  const double depth = config.family == model::Family::gpt2 ? 17.0 / 48 : 5.0 / 28;
  return std::lround(depth * static_cast<double>(config.layers));
}

std::variant<RomeSolution, Refusal> solve_rome(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                               const RomeRequest& request, const SecondMoment& moment) {
  const at::NoGradGuard no_grad;
  const auto slot = request.prompt_template.find(kSlot);
  if (slot == std::string::npos || request.prompt_template.find(kSlot, slot + 1) != std::string::npos)
    return Refusal{"the template \"" + request.prompt_template + "\" must hold {} once, where the subject goes"};
  const auto target = tokenizer.encode(request.target);
  if (request.subject.empty() || target.empty()) return Refusal{"the subject and the target must not be empty"};
  const auto writer = transformer.writer({SiteKind::mlp_out, moment.layer});
  if (!writer)
    return Refusal{"mlp_out[" + std::to_string(moment.layer) + "] is not written by a linear map alone in this model"};

  RomeSolution solution;
  solution.layer = moment.layer;
  Stopwatch watch;
  const auto half = request.prefixes / 2;
  const auto prefixes =
      sample_prefixes(transformer, tokenizer, {{half, 5}, {request.prefixes - half, 10}}, request.seed);
  auto made = make_prompts(tokenizer, request, prefixes);
  if (auto* refusal = std::get_if<Refusal>(&made)) return *refusal;
  const auto& prompts = std::get<RomePrompts>(made);
  solution.seconds.prefixes = watch.lap();

  const ValueObjective objective(transformer, moment.layer, prompts.rewriting, prompts.anchor, target);
  const auto k_bare = objective.keys()[0];
  const auto k_mean = objective.keys().mean(0);
  const auto mean_eigenvalue = moment.C.diagonal().mean();
  const auto C = moment.C + at::diag(request.ridge * mean_eigenvalue.expand({moment.C.size(0)}));
  auto u = at::linalg_solve(C, k_mean);
  u = u / u.norm();
  solution.seconds.keys = watch.lap();

  const auto optimised = optimise_value(objective, request);
  solution.losses = optimised.losses;
  solution.seconds.optimisation = watch.lap();

  const auto W = transformer.get(writer->weight).to(at::kDouble);  // [d_out, d_in]
  const auto held_bias = writer->bias.empty() ? at::Tensor() : transformer.get(writer->bias);
  const auto bias = held_bias.defined() ? held_bias.to(at::kDouble) : at::zeros_like(objective.value());
  const auto k_star = request.variant == RomeRequest::Variant::averaged ? k_mean : k_bare;
  const auto v_star = objective.value() + optimised.delta;
  solution.key_projection = k_star.dot(u).item<double>();
  const auto left = (v_star - W.mv(k_star) - bias) / solution.key_projection;
  if (!left.isfinite().all().item<bool>())
    return Refusal{"the second moment of mlp_post[" + std::to_string(moment.layer) +
                   "] cannot be inverted: measure it on a longer text, or name a ridge"};
  solution.delta = {writer->weight, left.unsqueeze(1), u.unsqueeze(0)};

  auto& certificate = solution.certificate;
  certificate.method = "rome";
  certificate.parameters = {
      {"layer", std::to_string(moment.layer)},
      {"variant", request.variant == RomeRequest::Variant::averaged ? "averaged" : "original"},
      {"steps", std::to_string(request.steps)},
      {"learning_rate", number(request.learning_rate)},
      {"kl_factor", number(request.kl_factor)},
      {"weight_decay", number(request.weight_decay)},
      {"clamp", number(request.clamp)},
      {"early_stop", number(request.early_stop)},
      {"ridge", number(request.ridge)},
      {"prefixes", std::to_string(prefixes.size())},
      {"seed", std::to_string(request.seed)},
      {"second_moment_tokens", std::to_string(moment.tokens)},
      {"second_moment_text", moment.corpus_sha256},
  };
  certificate.changes = {describe_change(transformer, solution.delta)};

  const auto v_norm = v_star.norm().item<double>();
  const auto error = [&](const at::Tensor& weight) {
    return (weight.mv(k_star) + bias - v_star).norm().item<double>() / v_norm;
  };
  const auto stored = changed_tensor(transformer.get(writer->weight), solution.delta).to(at::kDouble);
  const double bare_share = (k_bare.dot(u) / k_mean.dot(u)).item<double>();
  certificate.algebra = {
      {"constraint_error", error(W + left.outer(u))},
      {"constraint_error_as_stored", error(stored)},
      {"bare_key_share", bare_share},
      {"value_change_over_value", (optimised.delta.norm() / objective.value().norm()).item<double>()}};

  {
    const at::AutoGradMode gradients(true);
    const auto delta = at::zeros_like(objective.value()).requires_grad_(true);
    const auto readout = objective.bare_prompt(delta);
    const auto site_change = left * k_bare.dot(u);
    certificate.predicted = {
        {"log_probability_change", gradient(readout.log_probability, delta).dot(site_change).item<double>()},
        {"logit_change", gradient(readout.logit, delta).dot(site_change).item<double>()}};
  }
  LowRankWrite edited(solution.delta, moment.layer);
  const auto before = score(transformer, prompts.rewriting.front(), target, nullptr);
  const auto after = score(transformer, prompts.rewriting.front(), target, &edited);
  certificate.measured = {{"log_probability_before", before.log_probability},
                          {"log_probability_after", after.log_probability},
                          {"log_probability_change", after.log_probability - before.log_probability},
                          {"logit_before", before.logit},
                          {"logit_after", after.logit},
                          {"logit_change", after.logit - before.logit},
                          {"steps_taken", static_cast<double>(optimised.losses.size())},
                          {"final_loss", optimised.losses.back()},
                          {"final_target_nll", optimised.target_nll},
                          {"final_kl", optimised.kl}};
  solution.seconds.certificate = watch.lap();
  return solution;
}

}  // namespace proviso::editing

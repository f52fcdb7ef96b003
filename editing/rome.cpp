#include "editing/rome.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cmath>
#include <optional>
#include <utility>

#include "editing/target_score.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

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

std::vector<std::string> rome_prefixes(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                       const RomeRequest& request) {
  const auto half = request.prefixes / 2;
  return sample_prefixes(transformer, tokenizer, {{half, 5}, {request.prefixes - half, 10}}, request.seed);
}

std::variant<RomeSolution, Refusal> solve_rome(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                               const RomeRequest& request, const SecondMoment& moment) {
  const at::NoGradGuard no_grad;
  const auto writer = transformer.writer({SiteKind::mlp_out, moment.layer});
  if (!writer)
    return Refusal{"mlp_out[" + std::to_string(moment.layer) + "] is not written by a linear map alone in this model"};

  RomeSolution solution;
  solution.layer = moment.layer;
  Stopwatch watch;
  const auto prefixes = request.sampled ? *request.sampled : rome_prefixes(transformer, tokenizer, request);
  auto made = fact_prompts(tokenizer, request, prefixes, transformer.config().context);
  if (auto* refusal = std::get_if<Refusal>(&made)) return *refusal;
  const auto& prompts = std::get<FactPrompts>(made);
  const auto& target = prompts.target;
  solution.seconds.prefixes = watch.lap();

  const ValueObjective objective(transformer, {SiteKind::mlp_out, moment.layer}, prompts.rewriting, prompts.anchor,
                                 target);
  const auto k_bare = objective.keys()[0];
  const auto k_mean = objective.keys().mean(0);
  const double ridge = needed_ridge(moment, request.ridge);
  const auto towards = solve_moment(moment, ridge, k_mean.unsqueeze(1), "measure it on a longer text, or name a ridge");
  if (const auto* refusal = std::get_if<Refusal>(&towards)) return *refusal;
  const auto C_inv_k = std::get<at::Tensor>(towards).squeeze(1);
  const auto u = C_inv_k / C_inv_k.norm();
  solution.seconds.keys = watch.lap();

  std::optional<ValueObjective> narrow;
  if (request.looked_for_on)
    narrow.emplace(*request.looked_for_on, Site{SiteKind::mlp_out, moment.layer}, prompts.rewriting, prompts.anchor,
                   target);
  const auto optimised = optimise_value(narrow ? *narrow : objective, request);
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
    return Refusal{"the value looked for at mlp_out[" + std::to_string(moment.layer) +
                   "] is no number: lower learning_rate, or check that the model's own weights are numbers"};
  solution.delta = {writer->weight, left.unsqueeze(1), u.unsqueeze(0)};

  auto& certificate = solution.certificate;
  certificate.method = "rome";
  certificate.parameters = {
      {"layer", std::to_string(moment.layer)},
      {"variant", request.variant == RomeRequest::Variant::averaged ? "averaged" : "original"},
  };
  add_parameters(request, certificate.parameters);
  certificate.parameters.insert(certificate.parameters.end(),
                                {
                                    {"ridge", short_text(ridge)},
                                    {"prefixes", std::to_string(prefixes.size())},
                                    {"seed", std::to_string(request.seed)},
                                    {"second_moment_tokens", std::to_string(moment.tokens)},
                                    {"second_moment_text", moment.corpus_sha256},
                                });
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
      // What an input with |k·u| ≤ τ moves the site by is τ times this, at most.
      {"site_change_over_key_projection", left.norm().item<double>()},
      {"value_change_over_value", (optimised.delta.norm() / objective.value().norm()).item<double>()}};

  // What it went on with is the other logit that such an edit is about.
  const auto former = request.former.empty() ? std::vector<std::int64_t>() : tokenizer.encode(request.former);
  double logit_change = 0, former_change = 0;
  {
    const at::AutoGradMode gradients(true);
    const auto delta = at::zeros_like(objective.value()).requires_grad_(true);
    const auto readout = objective.bare_prompt(delta);
    const auto site_change = left * k_bare.dot(u);
    logit_change = gradient(readout.logit, delta).dot(site_change).item<double>();
    certificate.predicted = {
        {"log_probability_change", gradient(readout.log_probability, delta).dot(site_change).item<double>()},
        {"logit_change", logit_change}};
    if (!former.empty()) {
      former_change = gradient(readout.logits[former.front()], delta).dot(site_change).item<double>();
      certificate.predicted.emplace_back("former_logit_change", former_change);
    }
  }
  LowRankWrite edited(solution.delta, moment.layer);
  std::vector<ContinuedPrompt> bare{{prompts.rewriting.front().tokens, target}};
  if (!former.empty()) bare.push_back({bare.front().prompt, former});
  const auto all_before = target_scores(transformer, bare), all_after = target_scores(transformer, bare, &edited);
  const auto &before = all_before.front(), &after = all_after.front();
  certificate.measured = {{"log_probability_before", before.log_probability},
                          {"log_probability_after", after.log_probability},
                          {"log_probability_change", after.log_probability - before.log_probability},
                          {"logit_before", before.logit},
                          {"logit_after", after.logit},
                          {"logit_change", after.logit - before.logit},
                          {"prediction_error", logit_change - (after.logit - before.logit)},
                          {"target_is_argmax_before", before.is_argmax ? 1.0 : 0.0},
                          {"target_is_argmax_after", after.is_argmax ? 1.0 : 0.0},
                          {"steps_taken", static_cast<double>(optimised.losses.size())},
                          {"final_loss", optimised.losses.back()},
                          {"final_target_nll", optimised.target_nll},
                          {"final_kl", optimised.kl}};
  if (!former.empty()) {
    const double measured = all_after.back().logit - all_before.back().logit;
    certificate.measured.insert(certificate.measured.end(),
                                {{"former_log_probability_before", all_before.back().log_probability},
                                 {"former_log_probability_after", all_after.back().log_probability},
                                 {"former_logit_change", measured},
                                 {"former_prediction_error", former_change - measured}});
  }
  solution.seconds.certificate = watch.lap();
  return solution;
}

}  // namespace proviso::editing

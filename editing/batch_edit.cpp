#include "editing/batch_edit.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "editing/last_values.hpp"
#include "editing/target_score.hpp"
#include "runtime/model/pass_groups.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

constexpr std::int64_t kPrefixTokens = 10;

/// The values of `site` at the subjects' last tokens: [prompts, width] float64. What comes after does not matter.
at::Tensor at_subjects(const model::Transformer& transformer, const std::vector<const SubjectPrompt*>& prompts,
                       const Site& site) {
  std::vector<model::Row> rows;
  for (const auto* prompt : prompts) {
    const auto begin = prompt->tokens.begin();
    rows.push_back({{begin, begin + prompt->subject_last + 1}, std::ssize(prompt->tokens)});
  }
  return last_values(transformer, rows, site).values;
}

/// The facts of one request, as prompts.
class Batch {
 public:
  static std::variant<Batch, Refusal> make(const model::Tokenizer& tokenizer, const BatchRequest& request,
                                           const std::vector<std::string>& prefixes, std::int64_t context) {
    Batch batch;
    std::map<std::vector<std::int64_t>, const EditedFact*> seen;
    for (const auto& fact : request.facts) {
      auto prompts = fact_prompts(tokenizer, fact, prefixes, context);
      if (auto* refusal = std::get_if<Refusal>(&prompts)) return std::move(*refusal);
      auto& made = std::get<FactPrompts>(prompts);
      const auto& bare = made.rewriting.front();
      // What a key depends on.
      const std::vector<std::int64_t> known(bare.tokens.begin(), bare.tokens.begin() + bare.subject_last + 1);
      if (const auto [found, fresh] = seen.emplace(known, &fact); !fresh) {
        const auto& other = *found->second;
        const std::string both = "the facts `" + other.prompt_template + "` and `" + fact.prompt_template +
                                 "` about `" + fact.subject + "` ";
        if (other.prompt_template == fact.prompt_template && other.target != fact.target)
          return Refusal{both + "contradict each other: `" + other.target + "` and `" + fact.target + "`"};
        if (request.method == BatchMethod::emmet)
          return Refusal{both +
                         "have one key, for their texts are equal up to the subject's end, and emmet would have to "
                         "meet both: use memit or alphaedit, or word one of the templates otherwise before {}"};
      }
      batch.facts_.push_back(std::move(made));
    }
    return batch;
  }

  const std::vector<FactPrompts>& facts() const { return facts_; }

  /// What the second matrix of `layer` is given: [neurons, facts]. The bare prompt weighs as much as all prefixed ones.
  at::Tensor keys(const model::Transformer& transformer, std::int64_t layer) const {
    const Site site{SiteKind::mlp_post, layer};
    const auto bare = at_subjects(transformer, bare_prompts(), site);
    std::vector<const SubjectPrompt*> prefixed;
    for (const auto& fact : facts_) {
      for (std::size_t i = 1; i < fact.rewriting.size(); ++i) prefixed.push_back(&fact.rewriting[i]);
    }
    if (prefixed.empty()) return bare.t();
    const auto behind = at_subjects(transformer, prefixed, site)
                            .view({std::ssize(facts_), -1, bare.size(1)})  // [facts, prefixes, neurons]
                            .mean(1);
    return ((bare + behind) / 2).t();
  }

  /// The stream after `layer`: [width, facts].
  at::Tensor stream(const model::Transformer& transformer, std::int64_t layer) const {
    return at_subjects(transformer, bare_prompts(), {SiteKind::resid_post, layer}).t();
  }

  std::vector<TargetScore> scores(const model::Transformer& transformer) const {
    std::vector<ContinuedPrompt> prompts;
    for (const auto& fact : facts_) prompts.push_back({fact.rewriting.front().tokens, fact.target});
    return target_scores(transformer, prompts);
  }

 private:
  std::vector<const SubjectPrompt*> bare_prompts() const {
    std::vector<const SubjectPrompt*> prompts;
    for (const auto& fact : facts_) prompts.push_back(&fact.rewriting.front());
    return prompts;
  }

  std::vector<FactPrompts> facts_;
};

/// A of `BatchMethod`.
struct Answer {
  at::Tensor A;                ///< [d_in, facts]
  std::int64_t null_rank = 0;  ///< alphaedit: of P
};

std::variant<Answer, Refusal> answer(const BatchRequest& request, const SecondMoment& moment, const at::Tensor& K,
                                     const at::Tensor& earlier) {
  const auto& C = moment.C;
  const auto mean_eigenvalue = C.diagonal().mean();
  const double ridge = needed_ridge(moment, request.ridge);
  const std::string longer = request.method == BatchMethod::memit ? "measure it on a longer text"
                                                                  : "measure it on a longer text, or name a ridge";
  if (request.method == BatchMethod::memit && K.size(1) >= K.size(0)) {
    const auto added = ridge * mean_eigenvalue * at::eye(C.size(0), C.options());
    auto A = solve_moments(request.covariance_weight * (C + added) + K.matmul(K.t()), K, moment, longer);
    if (auto* refusal = std::get_if<Refusal>(&A)) return std::move(*refusal);
    return Answer{std::get<at::Tensor>(std::move(A))};
  }
  if (request.method != BatchMethod::alphaedit) {
    const auto CK = solve_moment(moment, ridge, K, longer);
    if (const auto* refusal = std::get_if<Refusal>(&CK)) return *refusal;
    const auto& C_inv_K = std::get<at::Tensor>(CK);
    auto G = K.t().matmul(C_inv_K);  // [facts, facts]
    // (λ C + K Kᵀ)⁻¹ K = C⁻¹ K (λ I + Kᵀ C⁻¹ K)⁻¹: with λ it is memit's, without it emmet's.
    if (request.method == BatchMethod::memit) G.diagonal().add_(request.covariance_weight);
    auto A_t = solve_moments(G, C_inv_K.t(), moment,
                             "the facts' keys depend on each other: use memit or alphaedit, or write fewer at once");
    if (auto* refusal = std::get_if<Refusal>(&A_t)) return std::move(*refusal);
    return Answer{std::get<at::Tensor>(A_t).t()};
  }
  // A lies in the null space, P = U Uᵀ, so the system is solved there: it is symmetric and as small as the space.
  const auto [values, vectors] = moment.factors->eigen(C);  // ascending
  const auto rank = (values < request.null_threshold * mean_eigenvalue).sum().item<std::int64_t>();
  if (rank == 0)
    return Refusal{"no eigenvalue of the second moment of mlp_post[" + std::to_string(moment.layer) + "] lies under " +
                   short_text(request.null_threshold) + " of their mean: the least is " +
                   short_text((values[0] / mean_eigenvalue).item<double>()) + "; raise null_threshold"};
  const auto U = vectors.narrow(1, 0, rank);
  const auto inside = U.t().matmul(earlier.defined() ? at::cat({K, earlier}, 1) : K);
  const auto r = request.ridge * C.diagonal().sum();
  const auto system = inside.matmul(inside.t()) + r * at::eye(rank, C.options());
  auto within = solve_moments(system, inside.narrow(1, 0, K.size(1)), moment, "raise ridge");
  if (auto* refusal = std::get_if<Refusal>(&within)) return std::move(*refusal);
  return Answer{U.matmul(std::get<at::Tensor>(within)), rank};
}

/// Of Frobenius norms; 0 of nothing is 0.
double share(const at::Tensor& part, const at::Tensor& whole) {
  return (part.norm() / whole.norm().clamp_min(1e-300)).item<double>();
}

/// √(tr ΔCΔᵀ / tr WCWᵀ): how far a key such as those of the text is moved, over what the matrix makes of it.
double other_keys_moved(const at::Tensor& R, const at::Tensor& A, const at::Tensor& W, const at::Tensor& C) {
  const auto moved = (R.matmul(A.t().matmul(C).matmul(A)) * R).sum();
  return (moved / (W.matmul(C) * W).sum()).sqrt().item<double>();
}

std::string listed(const std::vector<const SecondMoment*>& moments, std::int64_t SecondMoment::*of) {
  std::string text;
  for (const auto* moment : moments) text += (text.empty() ? "" : ", ") + std::to_string(moment->*of);
  return text;
}

Certificate begin_certificate(const BatchRequest& request, const std::vector<const SecondMoment*>& moments,
                              std::size_t prefixes, double earlier_facts) {
  static const std::map<BatchMethod, const char*> kNames = {
      {BatchMethod::memit, "memit"}, {BatchMethod::emmet, "emmet"}, {BatchMethod::alphaedit, "alphaedit"}};
  Certificate certificate;
  certificate.method = kNames.at(request.method);
  certificate.parameters = {{"facts", std::to_string(request.facts.size())},
                            {"layers", listed(moments, &SecondMoment::layer)}};
  add_parameters(request, certificate.parameters);
  certificate.parameters.emplace_back("prefixes", std::to_string(prefixes));
  certificate.parameters.emplace_back("seed", std::to_string(request.seed));
  const auto add = [&](const char* name, double value) {
    certificate.parameters.emplace_back(name, short_text(value));
  };
  if (request.method == BatchMethod::memit) add("covariance_weight", request.covariance_weight);
  if (request.method == BatchMethod::alphaedit) add("null_threshold", request.null_threshold);
  const bool of_C = request.method != BatchMethod::alphaedit;
  add("ridge", of_C ? needed_ridge(*moments.front(), request.ridge) : request.ridge);
  if (request.method == BatchMethod::alphaedit) add("earlier_facts", earlier_facts);
  certificate.parameters.emplace_back("second_moment_tokens", listed(moments, &SecondMoment::tokens));
  certificate.parameters.emplace_back("second_moment_text", moments.front()->corpus_sha256);
  return certificate;
}

}  // namespace

BatchRequest default_batch_request(BatchMethod method, const model::ModelConfig& config) {
  BatchRequest request;
  request.method = method;
  request.steps = 25;
  request.clamp = 0.75;
  request.covariance_weight = static_cast<double>(config.neurons) / 16;
  request.null_threshold = 0.5;
  request.ridge = method == BatchMethod::alphaedit ? 0.01 : 0;
  return request;
}

std::vector<std::int64_t> default_batch_layers(BatchMethod method, const model::ModelConfig& config) {
  const bool gpt2 = config.family == model::Family::gpt2;
  const auto at_depth = [&](double of, double layers) {
    return std::lround(of / layers * static_cast<double>(config.layers));
  };
  const auto first = gpt2 ? at_depth(13, 48) : at_depth(4, 32), last = gpt2 ? at_depth(17, 48) : at_depth(8, 32);
  if (method == BatchMethod::emmet) return {last};
  std::vector<std::int64_t> layers(last - first + 1);
  std::iota(layers.begin(), layers.end(), first);
  return layers;
}

std::vector<std::string> batch_prefixes(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                        const BatchRequest& request) {
  return sample_prefixes(transformer, tokenizer,
                         {{request.prefixes, kPrefixTokens, {"The", "Therefore", "Because", "I", "You"}}},
                         request.seed);
}

BatchValues BatchValues::select(const std::vector<std::int64_t>& facts) const {
  BatchValues some{changes.index_select(1, at::tensor(facts, at::kLong).to(changes.device())), {}};
  for (const auto fact : facts) {
    some.known.push_back(known[fact]);
    some.losses.push_back(losses[fact]);
  }
  return some;
}

namespace {

/// The gradient of each target's first token's logit at the bare prompt's end by the stream after `layer` at the
/// subject's end: [width, facts].
at::Tensor logit_slopes(const Batch& batch, const model::Transformer& transformer, std::int64_t layer) {
  std::vector<FactPrompts> bare;
  for (const auto& fact : batch.facts()) bare.push_back({{fact.rewriting.front()}, fact.anchor, fact.target});
  const auto tokens = [&](std::size_t i) { return 4 * (std::ssize(bare[i].rewriting.front().tokens) + 1); };
  std::vector<at::Tensor> slopes;
  for (const auto& [begin, end] : model::pass_groups(bare.size(), tokens)) {
    const ValueObjective objective(transformer, {SiteKind::resid_post, layer},
                                   std::span(bare).subspan(begin, end - begin));
    slopes.push_back(objective.logit_slopes());
  }
  return at::cat(slopes).t();
}

std::variant<Batch, Refusal> make_batch(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                        const BatchRequest& request) {
  const auto prefixes = request.sampled ? *request.sampled : batch_prefixes(transformer, tokenizer, request);
  return Batch::make(tokenizer, request, prefixes, transformer.config().context);
}

std::variant<BatchValues, Refusal> values_of(const Batch& batch, const model::Transformer& transformer,
                                             const BatchRequest& request, std::int64_t layer) {
  const auto& model = request.looked_for_on ? *request.looked_for_on : transformer;
  const std::span<const FactPrompts> facts = batch.facts();
  const auto tokens = [&](std::size_t i) {
    std::int64_t all = 0;  // of a step
    for (const auto& prompt : facts[i].rewriting)
      all += std::ssize(prompt.tokens) - prompt.subject_last + std::ssize(facts[i].target) - 1;
    return all;
  };
  std::vector<at::Tensor> changes;
  BatchValues values;
  // Gradients keep what a step computes: a quarter of what other passes take.
  for (const auto& [begin, end] : model::pass_groups(facts.size(), [&](std::size_t i) { return 4 * tokens(i); })) {
    const ValueObjective objective(model, {SiteKind::resid_post, layer}, facts.subspan(begin, end - begin));
    const auto optimised = optimise_values(objective, request);
    for (std::size_t i = begin; i < end; ++i) {
      const auto& found = optimised[i - begin];
      const bool holds = found.losses.front() < request.early_stop;
      const bool reaches = found.target_nll != found.first_target_nll;
      if (!found.delta.isfinite().all().item<bool>() || !(holds || reaches))
        return Refusal{"no change of the stream after layer " + std::to_string(layer) + " at the end of `" +
                       request.facts[i].subject + "` leads to `" + request.facts[i].target +
                       "`: edit earlier layers, from which attention takes it to the prompt's end"};
      values.known.push_back(holds);
      values.losses.push_back(found.losses.back());
      changes.push_back(found.delta);
    }
  }
  values.changes = at::stack(changes, 1);
  return values;
}

}  // namespace

std::variant<BatchValues, Refusal> batch_values(const model::Transformer& transformer,
                                                const model::Tokenizer& tokenizer, const BatchRequest& request,
                                                std::int64_t layer) {
  const at::NoGradGuard no_grad;
  auto made = make_batch(transformer, tokenizer, request);
  if (auto* refusal = std::get_if<Refusal>(&made)) return std::move(*refusal);
  return values_of(std::get<Batch>(made), transformer, request, layer);
}

std::variant<BatchSolution, Refusal> solve_batch(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                                 const BatchRequest& request,
                                                 const std::vector<const SecondMoment*>& moments,
                                                 const std::vector<at::Tensor>& earlier, const BatchValues* values) {
  const at::NoGradGuard no_grad;
  for (const auto* moment : moments) {
    if (!transformer.writer({SiteKind::mlp_out, moment->layer}))
      return Refusal{"mlp_out[" + std::to_string(moment->layer) +
                     "] is not written by a linear map alone in this model"};
  }
  auto made = make_batch(transformer, tokenizer, request);
  if (auto* refusal = std::get_if<Refusal>(&made)) return std::move(*refusal);
  const auto& batch = std::get<Batch>(made);

  const auto last_layer = moments.back()->layer;
  std::variant<BatchValues, Refusal> found;
  if (!values) {
    found = values_of(batch, transformer, request, last_layer);
    if (auto* refusal = std::get_if<Refusal>(&found)) return std::move(*refusal);
    values = &std::get<BatchValues>(found);
  }
  const auto& wanted = values->changes;  // [width, facts]
  const double facts = static_cast<double>(batch.facts().size());
  const double final_loss = std::accumulate(values->losses.begin(), values->losses.end(), 0.0) / facts;
  const auto known = static_cast<double>(std::ranges::count(values->known, true));
  const auto before = batch.stream(transformer, last_layer);
  const auto z = before + wanted;
  const auto scores_before = batch.scores(transformer);

  BatchSolution solution;
  auto& certificate = solution.certificate =
      begin_certificate(request, moments, batch.facts().front().rewriting.size() - 1,
                        earlier.empty() || !earlier[0].defined() ? 0 : earlier[0].size(1));
  AppliedDeltas applied(transformer);
  for (std::size_t i = 0; i < moments.size(); ++i) {
    const auto layer = moments[i]->layer;
    const auto K = batch.keys(transformer, layer);  // [d_in, facts]
    const auto R = (z - batch.stream(transformer, last_layer)) / static_cast<double>(moments.size() - i);
    auto answered = answer(request, *moments[i], K, i < earlier.size() ? earlier[i] : at::Tensor());
    if (auto* refusal = std::get_if<Refusal>(&answered)) return std::move(*refusal);
    const auto& [A, null_rank] = std::get<Answer>(answered);
    const auto weight = transformer.writer({SiteKind::mlp_out, layer})->weight;
    const auto where = "_layer_" + std::to_string(layer);
    certificate.algebra.emplace_back("constraint_error" + where, share(R.matmul(A.t()).matmul(K) - R, R));
    certificate.algebra.emplace_back("other_keys_moved" + where,
                                     other_keys_moved(R, A, transformer.get(weight).to(at::kDouble), moments[i]->C));
    if (request.method == BatchMethod::alphaedit)
      certificate.algebra.emplace_back("null_space_rank" + where, static_cast<double>(null_rank));
    WeightDelta delta{weight, R, A.t().contiguous()};
    // No more factors than the matrix has rows.
    if (R.size(1) > R.size(0)) delta = whole_change(delta.tensor, R.matmul(A.t()));
    certificate.changes.push_back(describe_change(transformer, delta));
    applied.apply(delta);
    solution.deltas.push_back(std::move(delta));
    solution.keys.push_back(K);
  }
  const auto missing = z - batch.stream(transformer, last_layer);
  certificate.measured = {{"value_change_over_value", share(wanted, before)},
                          {"value_missing", share(missing, wanted)},
                          {"final_loss", final_loss},
                          {"facts_known_before", known}};
  const auto scores_after = batch.scores(transformer);
  solution.facts = fact_certificates(certificate.method, scores_before, scores_after);
  const auto moved = batch.stream(transformer, last_layer) - before;  // [width, facts]
  applied.revert();
  const auto slopes = logit_slopes(batch, transformer, last_layer);  // [width, facts]
  for (std::size_t i = 0; i < solution.facts.size(); ++i) {
    const auto column = static_cast<std::int64_t>(i);
    const double predicted = (slopes.select(1, column) * moved.select(1, column)).sum().item<double>();
    const double measured = scores_after[i].logit - scores_before[i].logit;
    solution.facts[i].predicted = {{"logit_change", predicted}};
    auto& numbers = solution.facts[i].measured;
    numbers.emplace_back("logit_change", measured);
    numbers.emplace_back("prediction_error", predicted - measured);
    numbers.emplace_back("value_missing", share(missing.select(1, column), wanted.select(1, column)));
    numbers.emplace_back("final_loss", values->losses[i]);
  }
  const auto scores = score_changes(scores_before, scores_after);
  certificate.measured.insert(certificate.measured.end(), scores.begin(), scores.end());
  return solution;
}

}  // namespace proviso::editing

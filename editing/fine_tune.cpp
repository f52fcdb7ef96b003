#include "editing/fine_tune.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <utility>

#include "editing/adam.hpp"
#include "editing/site_capture.hpp"
#include "editing/target_score.hpp"
#include "runtime/model/pass_groups.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

/// The loss as a function of what is added to the matrix. Only layers above it depend on that: what goes into the
/// matrix, and the stream after its layer, are computed once.
class FineTuneObjective {
 public:
  FineTuneObjective(const model::Transformer& transformer, std::int64_t layer, std::vector<ContinuedPrompt> facts)
      : transformer_(transformer), layer_(layer) {
    const Site keys{SiteKind::mlp_post, layer}, stream{SiteKind::resid_post, layer};
    const auto length = [&](std::size_t i) { return std::ssize(facts[i].prompt) + std::ssize(facts[i].target) - 1; };
    for (const auto& [begin, end] : model::pass_groups(facts.size(), length)) {
      auto& group = groups_.emplace_back();
      std::vector<std::int64_t> targets;
      std::vector<float> shares;
      std::int64_t tokens = 0;
      for (std::size_t i = begin; i < end; ++i) {
        const auto& [prompt, target] = facts[i];
        model::Row row{prompt, std::ssize(prompt)};
        row.tokens.insert(row.tokens.end(), target.begin(), target.end() - 1);
        for (std::int64_t t = 0; t < std::ssize(target); ++t) {
          group.logits_at.push_back(tokens + std::ssize(prompt) - 1 + t);
          targets.push_back(target[t]);
          shares.push_back(1.0F / static_cast<float>(facts.size() * target.size()));
        }
        tokens += std::ssize(row.tokens);
        group.rows.push_back(std::move(row));
      }
      const auto device = transformer.options().device;
      group.targets = at::tensor(targets, at::kLong).unsqueeze(1).to(device);
      group.shares = at::tensor(shares).to(device);
      SiteCapture capture({keys, stream});
      model::Pass pass;
      pass.rows = &group.rows;
      pass.visitor = &capture;
      pass.stop_after = stream;
      transformer.forward(pass);
      group.keys = capture.at(keys).to(at::kFloat);
      group.stream = capture.at(stream);
    }
  }

  /// The loss at `change` [d_out, d_in] float32, and its gradient.
  std::pair<double, at::Tensor> at(const at::Tensor& change) const {
    double loss = 0;
    auto gradient = at::zeros_like(change);
    for (const auto& group : groups_) {
      const auto moved = group.stream.to(at::kFloat) + group.keys.mm(change.t());
      auto start = moved.to(group.stream.scalar_type()).requires_grad_(true);
      std::vector<at::Tensor> chunks;
      model::Pass pass;
      pass.rows = &group.rows;
      pass.start_after = layer_;
      pass.logits_at = group.logits_at;
      pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits); };
      {
        const at::AutoGradMode gradients(true);
        pass.start_values = start;
        transformer_.forward(pass);
        const auto log_probabilities = at::cat(chunks).log_softmax(-1).gather(1, group.targets).squeeze(1);
        const auto part = -(log_probabilities * group.shares).sum();
        loss += part.item<double>();
        part.backward();
      }
      gradient += start.grad().to(at::kFloat).t().mm(group.keys);
    }
    return {loss, gradient};
  }

 private:
  struct Group {
    std::vector<model::Row> rows;
    std::vector<std::int64_t> logits_at;
    at::Tensor targets;       // [m, 1]
    at::Tensor shares;        // [m]: of each token in the loss
    at::Tensor keys, stream;  // [n, neurons] float32, [n, width]
  };
  const model::Transformer& transformer_;
  std::int64_t layer_;
  std::vector<Group> groups_;
};

std::variant<std::vector<ContinuedPrompt>, Refusal> prompts_of(const FineTuneRequest& request,
                                                               const model::Tokenizer& tokenizer,
                                                               std::int64_t context) {
  std::vector<ContinuedPrompt> prompts;
  std::map<std::vector<std::int64_t>, const EditedFact*> seen;
  for (const auto& fact : request.facts) {
    auto made = fact_prompts(tokenizer, fact, {}, context);
    if (auto* refusal = std::get_if<Refusal>(&made)) return std::move(*refusal);
    auto& [rewriting, anchor, target] = std::get<FactPrompts>(made);
    prompts.push_back({std::move(rewriting.front().tokens), std::move(target)});
    const auto [found, fresh] = seen.emplace(prompts.back().prompt, &fact);
    if (!fresh && found->second->target != fact.target)
      return Refusal{"the facts about `" + fact.subject + "` contradict each other: `" + found->second->target +
                     "` and `" + fact.target + "`"};
  }
  return prompts;
}

}  // namespace

std::variant<FineTuneSolution, Refusal> solve_fine_tune(model::Transformer& transformer,
                                                        const model::Tokenizer& tokenizer,
                                                        const FineTuneRequest& request) {
  const at::NoGradGuard no_grad;
  const auto writer = transformer.writer({SiteKind::mlp_out, request.layer});
  if (!writer)
    return Refusal{"mlp_out[" + std::to_string(request.layer) + "] is not written by a linear map alone in this model"};
  auto made = prompts_of(request, tokenizer, transformer.config().context);
  if (auto* refusal = std::get_if<Refusal>(&made)) return std::move(*refusal);
  const auto& facts = std::get<std::vector<ContinuedPrompt>>(made);

  const auto W = transformer.get(writer->weight).to(at::kDouble);  // [d_out, d_in]
  const double root_mean_square = W.square().mean().sqrt().item<double>(), bound = request.norm * root_mean_square;
  const FineTuneObjective objective(transformer, request.layer, facts);
  FineTuneSolution solution;
  auto change = at::zeros(W.sizes(), W.options().dtype(at::kFloat));
  Adam adam(change, request.learning_rate * root_mean_square);
  for (std::int64_t step = 1; step <= request.steps; ++step) {
    const auto [loss, gradient] = objective.at(change);
    solution.losses.push_back(loss);
    if (loss < request.early_stop || step == request.steps) break;
    change = (change + adam.step(gradient)).clamp(-bound, bound);
  }
  if (!change.isfinite().all().item<bool>())
    return Refusal{"the weights of mlp_out[" + std::to_string(request.layer) +
                   "] are no numbers any more: lower learning_rate"};

  // A change of every weight has no rank below the matrix's own.
  solution.delta = whole_change(writer->weight, change);

  auto& certificate = solution.certificate;
  certificate.method = "ft";
  certificate.parameters = {{"facts", std::to_string(facts.size())},
                            {"layer", std::to_string(request.layer)},
                            {"norm", short_text(request.norm)},
                            {"steps", std::to_string(request.steps)},
                            {"learning_rate", short_text(request.learning_rate)},
                            {"early_stop", short_text(request.early_stop)}};
  certificate.changes = {describe_change(transformer, solution.delta)};
  const auto size = change.to(at::kDouble).abs();
  certificate.algebra = {
      {"largest_change_over_rms", (size.max() / root_mean_square).item<double>()},
      {"share_at_bound", (size >= bound * (1 - 1e-6)).to(at::kDouble).mean().item<double>()},
  };
  const auto before = target_scores(transformer, facts);
  AppliedDeltas applied(transformer);
  applied.apply(solution.delta);
  certificate.measured = {{"steps_taken", static_cast<double>(solution.losses.size())},
                          {"first_loss", solution.losses.front()},
                          {"final_loss", solution.losses.back()}};
  const auto after = target_scores(transformer, facts);
  solution.facts = fact_certificates("ft", before, after);
  const auto scores = score_changes(before, after);
  certificate.measured.insert(certificate.measured.end(), scores.begin(), scores.end());
  return solution;
}

}  // namespace proviso::editing

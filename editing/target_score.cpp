#include "editing/target_score.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "runtime/model/pass_groups.hpp"

namespace proviso::editing {

std::vector<TargetScore> target_scores(const model::Transformer& transformer,
                                       const std::vector<ContinuedPrompt>& prompts, model::SiteVisitor* visitor) {
  const at::NoGradGuard no_grad;
  std::vector<TargetScore> scores(prompts.size());
  const auto length = [&](std::size_t i) { return std::ssize(prompts[i].prompt) + std::ssize(prompts[i].target) - 1; };
  for (const auto& [begin, end] : model::pass_groups(prompts.size(), length)) {
    std::vector<model::Row> rows;
    std::vector<std::int64_t> logits_at;
    std::vector<std::pair<std::size_t, std::size_t>> read;  // prompt and target token of each logits row
    std::size_t tokens = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const auto& [prompt, target] = prompts[i];
      model::Row row{prompt, std::ssize(prompt)};
      row.tokens.insert(row.tokens.end(), target.begin(), target.end() - 1);
      for (std::size_t t = 0; t < target.size(); ++t) {
        logits_at.push_back(static_cast<std::int64_t>(tokens + prompt.size() - 1 + t));
        read.emplace_back(i, t);
      }
      tokens += row.tokens.size();
      rows.push_back(std::move(row));
    }
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = visitor;
    pass.logits_at = logits_at;
    pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
      for (std::int64_t i = 0; i < logits.size(0); ++i) {
        const auto [prompt, t] = read[first + i];
        const auto token = prompts[prompt].target[t];
        auto& score = scores[prompt];
        score.log_probability += logits[i].to(at::kDouble).log_softmax(-1)[token].item<double>();
        score.is_argmax = score.is_argmax && logits[i].argmax().item<std::int64_t>() == token;
        if (t == 0) score.logit = logits[i][token].item<double>();
      }
    };
    transformer.forward(pass);
  }
  return scores;
}

NamedNumbers score_changes(const std::vector<TargetScore>& before, const std::vector<TargetScore>& after) {
  const auto mean = [](const std::vector<TargetScore>& scores, auto of) {
    double sum = 0;
    for (const auto& score : scores) sum += of(score);
    return sum / static_cast<double>(scores.size());
  };
  const auto log_probability = [](const TargetScore& score) { return score.log_probability; };
  const auto is_argmax = [](const TargetScore& score) { return score.is_argmax ? 1.0 : 0.0; };
  const auto least = std::ranges::min(after, {}, &TargetScore::log_probability);
  return {{"log_probability_before", mean(before, log_probability)},
          {"log_probability_after", mean(after, log_probability)},
          {"least_log_probability_after", least.log_probability},
          {"target_is_argmax_before", mean(before, is_argmax)},
          {"target_is_argmax_after", mean(after, is_argmax)}};
}

}  // namespace proviso::editing

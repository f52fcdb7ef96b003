#include "editing/target_score.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/model/pass_groups.hpp"

namespace proviso::editing {

namespace {

/// Prompts that are equal are one row, however many targets follow it.
struct AskedPrompt {
  const std::vector<std::int64_t>* tokens = nullptr;
  std::vector<std::size_t> continued;  ///< the places of its targets
};

std::vector<AskedPrompt> distinct(const std::vector<ContinuedPrompt>& prompts) {
  std::vector<AskedPrompt> asked;
  std::map<std::vector<std::int64_t>, std::size_t> seen;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto [found, fresh] = seen.emplace(prompts[i].prompt, asked.size());
    if (fresh) asked.push_back({&prompts[i].prompt, {}});
    asked[found->second].continued.push_back(i);
  }
  return asked;
}

/// Takes the t-th token of a target into its score. `logits` is [vocabulary].
void take(TargetScore& score, const std::vector<std::int64_t>& target, std::size_t t, const at::Tensor& logits,
          const at::Tensor& log_probabilities) {
  const auto token = target[t];
  score.log_probability += log_probabilities[token].item<double>();
  score.is_argmax = score.is_argmax && logits.argmax().item<std::int64_t>() == token;
  if (t == 0) score.logit = logits[token].item<double>();
}

}  // namespace

std::vector<TargetScore> target_scores(const model::Transformer& transformer,
                                       const std::vector<ContinuedPrompt>& prompts, model::SiteVisitor* visitor) {
  const at::NoGradGuard no_grad;
  std::vector<TargetScore> scores(prompts.size());
  const auto asked = distinct(prompts);
  for (const auto& [begin, end] :
       model::pass_groups(asked.size(), [&](std::size_t i) { return std::ssize(*asked[i].tokens); })) {
    std::vector<model::Row> rows, later;
    std::vector<std::int64_t> last, later_rows, later_at;
    std::vector<std::pair<std::size_t, std::size_t>> later_read;  // continuation and target token of a logits row
    std::int64_t tokens = 0, later_tokens = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const auto& prompt = *asked[i].tokens;
      rows.push_back({prompt, std::ssize(prompt)});
      tokens += std::ssize(prompt);
      last.push_back(tokens - 1);
      for (const auto continued : asked[i].continued) {
        const auto& target = prompts[continued].target;
        if (target.size() == 1) continue;
        later_rows.push_back(static_cast<std::int64_t>(i - begin));
        later.push_back({{target.begin(), target.end() - 1}, std::ssize(prompt)});
        for (std::size_t t = 1; t < target.size(); ++t) {
          later_at.push_back(later_tokens++);
          later_read.emplace_back(continued, t);
        }
      }
    }
    model::KeyValueCache cache;
    model::Pass pass;
    pass.rows = &rows;
    pass.cache = later.empty() ? nullptr : &cache;
    pass.visitor = visitor;
    pass.logits_at = last;
    pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
      for (std::int64_t i = 0; i < logits.size(0); ++i) {
        const auto log_probabilities = logits[i].to(at::kDouble).log_softmax(-1);
        for (const auto continued : asked[begin + first + i].continued)
          take(scores[continued], prompts[continued].target, 0, logits[i], log_probabilities);
      }
    };
    transformer.forward(pass);
    if (later.empty()) continue;
    auto continued_from = cache.select(later_rows);
    model::Pass rest;
    rest.rows = &later;
    rest.cache = &continued_from;
    rest.append = false;
    rest.visitor = visitor;
    rest.logits_at = later_at;
    rest.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
      for (std::int64_t i = 0; i < logits.size(0); ++i) {
        const auto [continued, t] = later_read[first + i];
        take(scores[continued], prompts[continued].target, t, logits[i], logits[i].to(at::kDouble).log_softmax(-1));
      }
    };
    transformer.forward(rest);
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

std::vector<Certificate> fact_certificates(const std::string& method, const std::vector<TargetScore>& before,
                                           const std::vector<TargetScore>& after) {
  std::vector<Certificate> certificates;
  for (std::size_t i = 0; i < after.size(); ++i) {
    Certificate certificate;
    certificate.method = method;
    certificate.measured = {{"log_probability_before", before[i].log_probability},
                            {"log_probability_after", after[i].log_probability},
                            {"target_is_argmax_before", before[i].is_argmax ? 1.0 : 0.0},
                            {"target_is_argmax_after", after[i].is_argmax ? 1.0 : 0.0}};
    certificates.push_back(std::move(certificate));
  }
  return certificates;
}

}  // namespace proviso::editing

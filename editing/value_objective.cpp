#include "editing/value_objective.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <numeric>
#include <optional>

#include "editing/site_capture.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

std::vector<std::int64_t> first_integers(std::int64_t count) {
  std::vector<std::int64_t> all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace

ValueObjective::ValueObjective(const model::Transformer& transformer, const Site& value,
                               const std::vector<SubjectPrompt>& rewriting, const SubjectPrompt& anchor,
                               std::vector<std::int64_t> target)
    : transformer_(transformer), layer_(value.layer), target_(std::move(target)) {
  const at::NoGradGuard no_grad;

  std::vector<model::Row> before, from_subject;
  const auto add = [&](const SubjectPrompt& prompt, std::vector<std::int64_t> tokens,
                       std::vector<std::int64_t> logits_at) {
    const auto subject = tokens.begin() + prompt.subject_last;
    const auto prompt_length = std::ssize(prompt.tokens);
    before.push_back({{tokens.begin(), subject}, prompt_length});
    from_subject.push_back({{subject, tokens.end()}, prompt_length});
    continuations_.push_back({from_subject.back(), std::move(logits_at), {}});
  };
  for (const auto& prompt : rewriting) {
    auto tokens = prompt.tokens;
    tokens.insert(tokens.end(), target_.begin(), target_.end() - 1);
    std::vector<std::int64_t> logits_at(target_.size());
    std::iota(logits_at.begin(), logits_at.end(), std::ssize(prompt.tokens) - 1 - prompt.subject_last);
    add(prompt, std::move(tokens), std::move(logits_at));
  }
  add(anchor, {anchor.tokens.begin(), anchor.tokens.begin() + anchor.subject_last + 1}, {0});

  model::Pass prefix_pass;
  prefix_pass.rows = &before;
  prefix_pass.cache = &cache_;
  transformer.forward(prefix_pass);

  const Site key_site{SiteKind::mlp_post, layer_}, residual_site{SiteKind::resid_post, layer_};
  SiteCapture capture({key_site, value, residual_site});
  model::Pass subject_pass;
  subject_pass.rows = &from_subject;
  subject_pass.cache = &cache_;
  subject_pass.append = false;
  subject_pass.visitor = &capture;
  subject_pass.stop_after = residual_site;
  const auto layout = transformer.forward(subject_pass);

  std::vector<at::Tensor> keys;
  for (std::size_t i = 0; i < continuations_.size(); ++i) {
    const auto& span = layout.rows[i];
    continuations_[i].residual = capture.at(residual_site).narrow(0, span.begin, span.length);
    if (i < rewriting.size()) keys.push_back(capture.at(key_site)[span.begin].to(at::kDouble));
  }
  keys_ = at::stack(keys);
  value_ = capture.at(value)[layout.rows.front().begin].to(at::kDouble);
  anchor_log_probabilities_ = logits(at::zeros_like(value_), {std::ssize(rewriting)})[0].log_softmax(-1);
}

at::Tensor ValueObjective::logits(const at::Tensor& delta, const std::vector<std::int64_t>& rows) const {
  std::vector<model::Row> pass_rows;
  std::vector<at::Tensor> residuals;
  std::vector<std::int64_t> subjects, logits_at;
  std::int64_t begin = 0;
  for (const auto index : rows) {
    const auto& [row, wanted, residual] = continuations_[index];
    pass_rows.push_back(row);
    residuals.push_back(residual);
    subjects.push_back(begin);
    for (const auto position : wanted) logits_at.push_back(begin + position);
    begin += std::ssize(row.tokens);
  }

  std::optional<model::KeyValueCache> some_rows;
  if (rows.size() < continuations_.size()) some_rows = cache_.select(rows);
  std::vector<at::Tensor> chunks;
  model::Pass pass;
  pass.rows = &pass_rows;
  pass.cache = some_rows ? &*some_rows : &cache_;
  pass.append = false;
  pass.start_after = layer_;
  const auto base = at::cat(residuals);  // [n, width]
  const auto index = at::tensor(subjects, at::device(base.device()).dtype(at::kLong));
  pass.start_values = base.index_add(0, index, delta.to(base.dtype()).expand({std::ssize(rows), -1}));
  pass.logits_at = logits_at;
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits); };
  transformer_.forward(pass);
  return at::cat(chunks);
}

ValueObjective::Loss ValueObjective::loss(const at::Tensor& delta, double kl_factor, double weight_decay) const {
  const auto log_probabilities = logits(delta, first_integers(std::ssize(continuations_))).log_softmax(-1);
  const auto rewriting = std::ssize(continuations_) - 1;
  const auto target = at::tensor(target_, at::device(delta.device()).dtype(at::kLong)).repeat({rewriting});
  const auto nll = -log_probabilities.narrow(0, 0, target.size(0)).gather(1, target.unsqueeze(1)).mean();
  const auto anchor = log_probabilities[-1];
  const auto kl = (anchor.exp() * (anchor - anchor_log_probabilities_)).sum();
  const auto v0_norm = value_.norm().item<double>();
  return {nll + kl_factor * kl + weight_decay * delta.norm() / (v0_norm * v0_norm), nll.item<double>(),
          kl.item<double>()};
}

ValueObjective::Readout ValueObjective::bare_prompt(const at::Tensor& delta) const {
  const auto target = at::tensor(target_, at::device(delta.device()).dtype(at::kLong)).unsqueeze(1);
  const auto of_target = logits(delta, {0});
  return {of_target.log_softmax(-1).gather(1, target).sum(), of_target[0][target_.front()]};
}

}  // namespace proviso::editing

#include "editing/value_objective.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <numeric>
#include <utility>

#include "editing/site_capture.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

std::vector<FactPrompts> one_fact(const std::vector<SubjectPrompt>& rewriting, const SubjectPrompt& anchor,
                                  std::vector<std::int64_t> target) {
  std::vector<FactPrompts> facts(1);
  facts.front() = {rewriting, anchor, std::move(target)};
  return facts;
}

}  // namespace

ValueObjective::ValueObjective(const model::Transformer& transformer, const Site& value,
                               const std::vector<SubjectPrompt>& rewriting, const SubjectPrompt& anchor,
                               std::vector<std::int64_t> target)
    : ValueObjective(transformer, value, one_fact(rewriting, anchor, std::move(target))) {}

ValueObjective::ValueObjective(const model::Transformer& transformer, const Site& value,
                               std::span<const FactPrompts> facts)
    : transformer_(transformer), layer_(value.layer) {
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
  std::vector<std::int64_t> anchors;
  for (const auto& [rewriting, anchor, target] : facts) {
    facts_.push_back({std::ssize(continuations_), std::ssize(rewriting), target, {}});
    for (const auto& prompt : rewriting) {
      auto tokens = prompt.tokens;
      tokens.insert(tokens.end(), target.begin(), target.end() - 1);
      std::vector<std::int64_t> logits_at(target.size());
      std::iota(logits_at.begin(), logits_at.end(), std::ssize(prompt.tokens) - 1 - prompt.subject_last);
      add(prompt, std::move(tokens), std::move(logits_at));
    }
    anchors.push_back(std::ssize(continuations_));
    add(anchor, {anchor.tokens.begin(), anchor.tokens.begin() + anchor.subject_last + 1}, {0});
  }

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

  std::vector<at::Tensor> keys, values;
  for (const auto& fact : facts_) {
    for (std::int64_t i = fact.first; i <= fact.first + fact.rewriting; ++i) {
      const auto& span = layout.rows[i];
      continuations_[i].residual = capture.at(residual_site).narrow(0, span.begin, span.length);
      if (i < fact.first + fact.rewriting) keys.push_back(capture.at(key_site)[span.begin].to(at::kDouble));
    }
    values.push_back(capture.at(value)[layout.rows[fact.first].begin].to(at::kDouble));
  }
  keys_ = at::stack(keys);
  values_ = at::stack(values);
  const auto initial = logits(at::zeros({std::ssize(anchors), values_.size(1)}, values_.options()), anchors);
  for (std::size_t i = 0; i < facts_.size(); ++i)
    facts_[i].anchor_log_probabilities = initial[static_cast<std::int64_t>(i)].log_softmax(-1);
}

at::Tensor ValueObjective::keys(std::int64_t fact) const {
  std::int64_t first = 0;
  for (std::int64_t i = 0; i < fact; ++i) first += facts_[i].rewriting;
  return keys_.narrow(0, first, facts_[fact].rewriting);
}

const model::KeyValueCache& ValueObjective::cache_of(const std::vector<std::int64_t>& rows) const {
  if (rows.size() == continuations_.size()) return cache_;
  if (rows != some_rows_) {  // an optimisation asks for the same rows many times
    some_ = cache_.select(rows);
    some_rows_ = rows;
  }
  return some_;
}

at::Tensor ValueObjective::logits(const at::Tensor& deltas, const std::vector<std::int64_t>& rows) const {
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

  std::vector<at::Tensor> chunks;
  model::Pass pass;
  pass.rows = &pass_rows;
  pass.cache = const_cast<model::KeyValueCache*>(&cache_of(rows));  // `append` is off: it is read
  pass.append = false;
  pass.start_after = layer_;
  const auto base = at::cat(residuals);  // [n, width]
  const auto index = at::tensor(subjects, at::kLong).to(base.device());
  pass.start_values = base.index_add(0, index, deltas.to(base.dtype()));
  pass.logits_at = logits_at;
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits); };
  transformer_.forward(pass);
  return at::cat(chunks);
}

std::vector<ValueObjective::Loss> ValueObjective::losses(const at::Tensor& deltas,
                                                         const std::vector<std::int64_t>& facts, double kl_factor,
                                                         double weight_decay) const {
  std::vector<std::int64_t> rows, of_row, sizes;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    const auto& fact = facts_[facts[i]];
    for (std::int64_t row = fact.first; row <= fact.first + fact.rewriting; ++row) {
      rows.push_back(row);
      of_row.push_back(static_cast<std::int64_t>(i));
    }
    sizes.push_back(fact.rewriting * std::ssize(fact.target) + 1);
  }
  const auto index = at::tensor(of_row, at::kLong).to(deltas.device());
  const auto of_facts = logits(deltas.index_select(0, index), rows).log_softmax(-1).split_with_sizes(sizes);
  std::vector<Loss> losses;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    const auto& fact = facts_[facts[i]];
    const auto& log_probabilities = of_facts[i];
    const auto target = at::tensor(fact.target, at::kLong).to(deltas.device()).repeat({fact.rewriting});
    const auto nll = -log_probabilities.narrow(0, 0, target.size(0)).gather(1, target.unsqueeze(1)).mean();
    const auto anchor = log_probabilities[-1];
    const auto kl = (anchor.exp() * (anchor - fact.anchor_log_probabilities)).sum();
    const auto v0_norm = values_[facts[i]].norm().item<double>();
    const auto size = deltas[static_cast<std::int64_t>(i)].norm();
    losses.push_back(
        {nll + kl_factor * kl + weight_decay * size / (v0_norm * v0_norm), nll.item<double>(), kl.item<double>()});
  }
  return losses;
}

ValueObjective::Loss ValueObjective::loss(const at::Tensor& delta, double kl_factor, double weight_decay) const {
  return losses(delta.unsqueeze(0), {0}, kl_factor, weight_decay).front();
}

ValueObjective::Readout ValueObjective::bare_prompt(const at::Tensor& delta) const {
  const auto& wanted = facts_.front().target;
  const auto target = at::tensor(wanted, at::kLong).to(delta.device()).unsqueeze(1);
  const auto of_target = logits(delta.unsqueeze(0), {0});
  return {of_target.log_softmax(-1).gather(1, target).sum(), of_target[0][wanted.front()], of_target[0]};
}

at::Tensor ValueObjective::logit_slopes() const {
  const at::AutoGradMode gradients(true);
  std::vector<std::int64_t> bare, at, targets;
  std::int64_t read = 0;
  for (const auto& fact : facts_) {
    bare.push_back(fact.first);
    at.push_back(read);
    read += std::ssize(fact.target);
    targets.push_back(fact.target.front());
  }
  const auto deltas = at::zeros_like(values_).requires_grad_(true);
  const auto index = [&](const std::vector<std::int64_t>& ids) {
    return at::tensor(ids, at::kLong).to(values_.device());
  };
  const auto ends = logits(deltas, bare).index_select(0, index(at));
  ends.gather(1, index(targets).unsqueeze(1)).sum().backward();
  return deltas.grad();
}

}  // namespace proviso::editing

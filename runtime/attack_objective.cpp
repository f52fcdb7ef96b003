#include "runtime/attack_objective.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "runtime/model/pass_groups.hpp"
#include "runtime/perturbation.hpp"

namespace proviso::runtime {

/// Adds to the stream, with a gradient, beside the hooks, through which it flows as if they added constants.
class AttackObjective::Adding : public model::ReadingVisitor {
 public:
  Adding(HookPass& hooks, const dsl::Site& site, const at::Tensor& added, std::optional<double> share)
      : hooks_(hooks), site_(site), added_(added), share_(share) {}

  model::StreamReader* reader() override { return hooks_.reader(); }
  bool wants(const dsl::Site& site) const override { return site == site_ || hooks_.wants(site); }
  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    if (hooks_.wants(site)) {
      const at::NoGradGuard no_grad;
      at::Tensor changed = x.detach().clone();
      hooks_.visit(site, changed, layout);
      const at::Tensor change = changed - x.detach();
      const at::AutoGradMode with_gradients(true);
      x = x + change;
    }
    if (site != site_) return;
    // The prompt's rows, one for each continuation, begin with its tokens.
    at::Tensor all = at::zeros({layout.size(), added_.size(1)}, added_.options());
    std::vector<at::Tensor> parts;
    for (const auto& row : layout.rows) {
      parts.push_back(added_);
      if (row.length > added_.size(0)) parts.push_back(all.narrow(0, 0, row.length - added_.size(0)));
    }
    all = at::cat(parts);
    x = share_ ? perturbed(x, all, *share_) : (x.to(at::kFloat) + all).to(x.scalar_type());
  }

 private:
  HookPass& hooks_;
  dsl::Site site_;
  at::Tensor added_;
  std::optional<double> share_;
};

AttackObjective::AttackObjective(const model::Transformer& transformer, HookPass& hooks, const ConditionSet& conditions,
                                 AttackTarget target)
    : transformer_(transformer), hooks_(hooks), conditions_(conditions), target_(std::move(target)) {
  hooks_.set_perturbation(nullptr);
}

at::Tensor AttackObjective::nll(std::span<const EncodedPrompt> prompts, model::SiteVisitor& visitor) const {
  std::vector<model::Row> rows;
  std::vector<RowMemory> memories;
  std::vector<std::int64_t> logits_at, wanted, lengths;
  std::int64_t packed = 0;
  for (const auto& prompt : prompts) {
    const auto length = std::ssize(prompt.tokens);
    for (const auto& continuation : target_.continuations) {
      model::Row row{prompt.tokens, length};
      row.tokens.insert(row.tokens.end(), continuation.begin(), continuation.end() - 1);
      for (std::int64_t i = 0; i < std::ssize(continuation); ++i) logits_at.push_back(packed + length - 1 + i);
      wanted.insert(wanted.end(), continuation.begin(), continuation.end());
      lengths.push_back(std::ssize(continuation));
      packed += std::ssize(row.tokens);
      rows.push_back(std::move(row));
      memories.push_back(conditions_.begin_row(prompt.text));
    }
  }
  std::vector<RowMemory*> pointers;
  for (auto& memory : memories) pointers.push_back(&memory);
  hooks_.begin(std::move(pointers));
  const auto ids = at::tensor(wanted, at::kLong).to(transformer_.options().device).unsqueeze(1);
  std::vector<at::Tensor> chunks;
  model::Pass pass;
  pass.rows = &rows;
  pass.visitor = &visitor;
  pass.logits_at = logits_at;
  pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
    chunks.push_back(logits.log_softmax(-1).gather(1, ids.narrow(0, first, logits.size(0))).squeeze(1));
  };
  tokens_ += transformer_.forward(pass).size();
  sequences_ += std::ssize(rows);
  std::vector<at::Tensor> of_continuations;
  for (const auto& part : at::cat(chunks).split_with_sizes(lengths)) of_continuations.push_back(part.sum());
  return -at::stack(of_continuations).view({std::ssize(prompts), -1}).logsumexp(1);
}

std::vector<double> AttackObjective::nll(std::span<const EncodedPrompt> prompts) const {
  const at::NoGradGuard no_grad;
  std::vector<double> all;
  const auto tokens = [&](std::size_t i) {
    std::int64_t count = 0;
    for (const auto& continuation : target_.continuations)
      count += std::ssize(prompts[i].tokens) + std::ssize(continuation) - 1;
    return count;
  };
  for (const auto& [begin, end] : model::pass_groups(prompts.size(), tokens)) {
    const auto values = nll(prompts.subspan(begin, end - begin), hooks_).to(at::kDouble).cpu().contiguous();
    all.insert(all.end(), values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel());
  }
  return all;
}

AttackObjective::Slope AttackObjective::slope(const EncodedPrompt& prompt, const dsl::Site& site,
                                              const at::Tensor& added, std::optional<double> share) const {
  const at::AutoGradMode with_gradients(true);
  const auto variable = added.detach().clone().to(transformer_.options().device).requires_grad_(true);
  Adding adding(hooks_, site, variable, share);
  const auto value = nll(std::span(&prompt, 1), adding).squeeze(0);
  (target_.toward ? value : -value).backward();
  return {value.item<double>(), variable.grad().to(at::kFloat).cpu()};
}

}  // namespace proviso::runtime

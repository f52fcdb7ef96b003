#include "editing/side_effects.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "editing/site_capture.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

constexpr std::int64_t kRowLength = 128;
constexpr std::size_t kRowsAPass = 8;

/// Rows of `corpus` in groups that go through the model together.
std::vector<std::vector<model::Row>> row_groups(const Corpus& corpus, const model::Tokenizer& tokenizer,
                                                const model::Transformer& transformer, std::size_t group_size) {
  const auto rows = corpus_rows(corpus, tokenizer, std::min(kRowLength, transformer.config().context));
  if (rows.empty())
    throw model::InputError("the text to measure side effects on holds too few tokens; name a longer one");
  std::vector<std::vector<model::Row>> groups;
  for (std::size_t first = 0; first < rows.size(); first += group_size)
    groups.emplace_back(rows.begin() + first, rows.begin() + std::min(first + group_size, rows.size()));
  return groups;
}

at::Tensor all_log_probabilities(const model::Transformer& transformer, const std::vector<model::Row>& rows) {
  std::vector<at::Tensor> chunks;
  model::Pass pass;
  pass.rows = &rows;
  pass.logits_at = std::nullopt;
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits.log_softmax(-1)); };
  transformer.forward(pass);
  return at::cat(chunks);
}

/// Minus the log probability of each row's tokens after its first.
double total_nll(const at::Tensor& log_probabilities, const std::vector<model::Row>& rows) {
  double total = 0;
  std::int64_t begin = 0;
  for (const auto& row : rows) {
    const auto predicted = std::ssize(row.tokens) - 1;
    const auto next =
        at::tensor(row.tokens, at::device(log_probabilities.device()).dtype(at::kLong)).narrow(0, 1, predicted);
    total -= log_probabilities.narrow(0, begin, predicted).gather(1, next.unsqueeze(1)).sum(at::kDouble).item<double>();
    begin += predicted + 1;
  }
  return total;
}

/// ‖x‖ at the end of the residual stream, without each row's first position.
at::Tensor final_norms(const model::Transformer& transformer, const std::vector<model::Row>& rows) {
  const Site last{SiteKind::resid_post, transformer.config().layers - 1};
  SiteCapture capture({last});
  model::Pass pass;
  pass.rows = &rows;
  pass.visitor = &capture;
  pass.stop_after = last;
  const auto layout = transformer.forward(pass);
  return capture.at(last).to(at::kDouble).norm(2, -1).masked_select(layout.positions > 0);
}

}  // namespace

NamedNumbers norm_ratio(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<WeightDelta>& deltas, const Corpus& unseen, std::int64_t most_tokens) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> ratios;
  std::int64_t tokens = 0;
  for (const auto& rows : row_groups(unseen, tokenizer, transformer, kRowsAPass)) {
    if (tokens >= most_tokens) break;
    const auto before = final_norms(transformer, rows);
    AppliedDeltas applied(transformer);
    for (const auto& delta : deltas) applied.apply(delta);
    ratios.push_back(before / final_norms(transformer, rows));
    tokens += before.size(0);
  }
  const auto ratio = at::cat(ratios);
  return {{"norm_ratio_mean", ratio.mean().item<double>()},
          {"norm_ratio_least", ratio.min().item<double>()},
          {"norm_ratio_most", ratio.max().item<double>()}};
}

NamedNumbers key_reach(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                       const RomeSolution& solution, const Corpus& unseen) {
  const at::NoGradGuard no_grad;
  const Site keys_site{SiteKind::mlp_post, solution.layer}, site{SiteKind::mlp_out, solution.layer};
  const double left_norm = solution.delta.left.norm().item<double>();
  std::vector<at::Tensor> projections, site_norms;
  for (const auto& rows : row_groups(unseen, tokenizer, transformer, kRowsAPass)) {
    SiteCapture capture({keys_site, site});
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &capture;
    pass.stop_after = site;
    transformer.forward(pass);
    projections.push_back(capture.at(keys_site).to(at::kDouble).mv(solution.delta.right[0]).abs());
    site_norms.push_back(capture.at(site).to(at::kDouble).norm(2, -1));
  }
  const auto projection = at::cat(projections);
  const auto share = projection / std::abs(solution.key_projection);
  const auto relative = left_norm * projection / at::cat(site_norms);
  return {{"unseen_positions", static_cast<double>(share.size(0))},
          {"untouched_share", (share < kUntouchedShare).to(at::kDouble).mean().item<double>()},
          {"median_key_share", share.quantile(0.5).item<double>()},
          {"key_share_99_percent", share.quantile(0.99).item<double>()},
          {"largest_key_share", share.max().item<double>()},
          {"largest_site_change", relative.max().item<double>()},
          {"mean_site_change", relative.mean().item<double>()}};
}

NamedNumbers text_costs(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<WeightDelta>& deltas, const Corpus& unseen, std::int64_t most_tokens) {
  const at::NoGradGuard no_grad;
  double nll_before = 0, nll_after = 0, kl = 0;
  std::int64_t tokens = 0, predicted = 0;
  // Two rows at a time: both sets of log probabilities are held at once.
  for (const auto& rows : row_groups(unseen, tokenizer, transformer, 2)) {
    if (tokens >= most_tokens) break;
    const auto before = all_log_probabilities(transformer, rows);
    AppliedDeltas applied(transformer);
    for (const auto& delta : deltas) applied.apply(delta);
    const auto after = all_log_probabilities(transformer, rows);
    nll_before += total_nll(before, rows);
    nll_after += total_nll(after, rows);
    kl += (before.exp() * (before - after)).sum(at::kDouble).item<double>();
    tokens += before.size(0);
    predicted += before.size(0) - std::ssize(rows);
  }
  const auto count = static_cast<double>(predicted);
  const double perplexity_before = std::exp(nll_before / count), perplexity_after = std::exp(nll_after / count);
  return {{"unseen_tokens", static_cast<double>(tokens)},
          {"perplexity_before", perplexity_before},
          {"perplexity_after", perplexity_after},
          {"perplexity_rise", perplexity_after / perplexity_before - 1},
          {"kl", kl / static_cast<double>(tokens)}};
}

NamedNumbers site_reach(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<WeightDelta>& deltas, const Corpus& unseen, std::int64_t most_tokens) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<std::int64_t, at::Tensor>> changed;  // layer, [d_out, d_in]
  for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
    const auto writer = transformer.writer({SiteKind::mlp_out, layer});
    if (!writer) continue;
    at::Tensor sum;
    for (const auto& delta : deltas) {
      if (delta.tensor != writer->weight) continue;
      const auto change = delta.left.mm(delta.right);
      sum = sum.defined() ? sum + change : change;
    }
    if (sum.defined()) changed.emplace_back(layer, sum);
  }
  if (changed.empty()) return {};
  std::vector<Site> sites;
  for (const auto& [layer, change] : changed) {
    sites.push_back({SiteKind::mlp_post, layer});
    sites.push_back({SiteKind::mlp_out, layer});
  }
  std::vector<std::vector<at::Tensor>> shares(changed.size());
  AppliedDeltas applied(transformer);
  for (const auto& delta : deltas) applied.apply(delta);
  std::int64_t tokens = 0;
  for (const auto& rows : row_groups(unseen, tokenizer, transformer, kRowsAPass)) {
    if (tokens >= most_tokens) break;
    SiteCapture capture(sites);
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &capture;
    pass.stop_after = sites.back();
    tokens += transformer.forward(pass).size();
    for (std::size_t i = 0; i < changed.size(); ++i) {
      const auto moved = capture.at(sites[2 * i]).to(at::kDouble).mm(changed[i].second.t());  // [n, d_out]
      const auto before = capture.at(sites[2 * i + 1]).to(at::kDouble) - moved;
      shares[i].push_back(moved.norm(2, -1) / before.norm(2, -1));
    }
  }
  NamedNumbers numbers;
  for (std::size_t i = 0; i < changed.size(); ++i) {
    const auto share = at::cat(shares[i]);
    const auto where = "_layer_" + std::to_string(changed[i].first);
    numbers.emplace_back("median_site_change" + where, share.quantile(0.5).item<double>());
    numbers.emplace_back("site_change_99_percent" + where, share.quantile(0.99).item<double>());
    numbers.emplace_back("largest_site_change" + where, share.max().item<double>());
  }
  return numbers;
}

}  // namespace proviso::editing

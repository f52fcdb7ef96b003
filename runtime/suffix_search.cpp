#include "runtime/suffix_search.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <set>
#include <stdexcept>
#include <utility>

#include "runtime/model/random.hpp"

namespace proviso::runtime {
namespace {

constexpr std::int64_t kPromising = 256;
/// So many swaps are drawn for each candidate at most: many make a text that is read as other tokens.
constexpr std::int64_t kDrawsForCandidate = 16;
constexpr dsl::Site kEmbed{dsl::SiteKind::embed, -1, -1};

/// Of each token of the suffix, the tokens that by the gradient lower the loss most: [suffix, promising].
at::Tensor promising_tokens(const model::Transformer& transformer, const at::Tensor& gradient,
                            const at::Tensor& may_take) {
  const at::NoGradGuard no_grad;
  const auto embedding = transformer.get(transformer.embedding_name());  // [vocabulary, width]
  const auto rise = gradient.to(embedding.device()).to(embedding.scalar_type()).matmul(embedding.t()).to(at::kFloat);
  const auto allowed = rise.cpu().masked_fill(may_take.logical_not(), std::numeric_limits<float>::infinity());
  const auto count = std::min<std::int64_t>(kPromising, may_take.sum().item<std::int64_t>());
  return std::get<1>(allowed.topk(count, /*dim=*/1, /*largest=*/false)).contiguous();
}

}  // namespace

at::Tensor writable_tokens(const model::Transformer& transformer, const model::Tokenizer& tokenizer) {
  const std::int64_t vocabulary = transformer.config().vocabulary;
  auto may_take = at::zeros({vocabulary}, at::kBool);
  auto* values = may_take.mutable_data_ptr<bool>();
  for (std::int64_t id = 0; id < std::min(vocabulary, tokenizer.size()); ++id) values[id] = is_writable(tokenizer, id);
  return may_take;
}

FoundSuffix search_suffix(const model::Transformer& transformer, const AttackObjective& objective,
                          const SuffixPlace& place, const dsl::Attack& attack, std::vector<std::int64_t> start,
                          const at::Tensor& may_take, std::uint64_t seed) {
  const auto bare = place.with({});
  auto first = place.with(start);
  if (!bare || !first) throw std::logic_error("a search starts from a suffix that is none");
  FoundSuffix best{std::move(start), std::move(*first), {}};
  const auto before = objective.nll(std::vector{*bare, best.prompt});
  best.nll = {before[0], before[1]};

  model::NormalSource random(seed);
  const auto length = std::ssize(best.suffix);
  at::Tensor promising;  // by token of the best suffix; taken anew where that changed
  std::set<std::vector<std::int64_t>> tried{best.suffix};
  for (std::int64_t step = 0; step < attack.steps; ++step) {
    if (!promising.defined()) {
      const auto nothing = at::zeros({std::ssize(best.prompt.tokens), transformer.config().width});
      const auto slope = objective.slope(best.prompt, kEmbed, nothing, std::nullopt);
      promising = promising_tokens(transformer, slope.gradient.narrow(0, place.begin(), length), may_take);
    }
    std::vector<std::vector<std::int64_t>> suffixes;
    std::vector<EncodedPrompt> prompts;
    for (std::int64_t draws = 0; draws < kDrawsForCandidate * attack.candidates; ++draws) {
      if (std::ssize(suffixes) == attack.candidates) break;
      const auto at = random.below(static_cast<std::size_t>(length));
      const auto which = static_cast<std::int64_t>(random.below(static_cast<std::size_t>(promising.size(1))));
      auto candidate = best.suffix;
      candidate[at] = promising[static_cast<std::int64_t>(at)][which].item<std::int64_t>();
      if (!tried.insert(candidate).second) continue;
      auto prompt = place.with(candidate);
      if (!prompt) continue;
      suffixes.push_back(std::move(candidate));
      prompts.push_back(std::move(*prompt));
    }
    if (suffixes.empty()) continue;  // all that the gradient names was tried, or is read otherwise
    const auto nll = objective.nll(prompts);
    const auto least = std::min_element(nll.begin(), nll.end(),
                                        [&](double a, double b) { return objective.loss(a) < objective.loss(b); });
    if (!(objective.loss(*least) < objective.loss(best.nll.after))) continue;
    const auto found = static_cast<std::size_t>(least - nll.begin());
    best = {std::move(suffixes[found]), std::move(prompts[found]), {best.nll.before, *least}};
    promising = at::Tensor();
  }
  return best;
}

}  // namespace proviso::runtime

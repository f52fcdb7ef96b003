#include "runtime/circuits/measured_pairs.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "runtime/model/pass_groups.hpp"
#include "runtime/model/reading_visitor.hpp"

namespace proviso::runtime {

namespace {

/// What a batch, or the copies of one in a pass, takes at most, in numbers, unless one pair takes more.
constexpr std::int64_t kNumbersInBatch = std::int64_t{16} << 20;

/// What is in force acts, then another sees what it leaves.
class Stacked : public model::ReadingVisitor {
 public:
  Stacked(model::SiteVisitor* in_force, model::SiteVisitor* then) : in_force_(in_force), then_(then) {}

  model::StreamReader* reader() override {
    auto* reading = dynamic_cast<model::ReadingVisitor*>(in_force_);
    return reading ? reading->reader() : nullptr;
  }
  bool wants(const dsl::Site& site) const override { return wants(in_force_, site) || wants(then_, site); }
  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    for (auto* each : {in_force_, then_}) {
      if (wants(each, site)) each->visit(site, x, layout);
    }
  }

 private:
  static bool wants(const model::SiteVisitor* visitor, const dsl::Site& site) {
    return visitor != nullptr && visitor->wants(site);
  }

  model::SiteVisitor *in_force_, *then_;
};

at::Tensor measure_of(const at::Tensor& logits, const at::Tensor& raised, const at::Tensor& lowered) {
  const auto of = [](const at::Tensor& values, const at::Tensor& ids) {
    return values.gather(1, ids.unsqueeze(1)).squeeze(1).to(at::kDouble);
  };
  return lowered.defined() ? of(logits, raised) - of(logits, lowered) : of(logits.log_softmax(-1), raised).exp();
}

/// Also where they keep what a gradient needs.
std::int64_t tokens_at_once(std::int64_t numbers_a_token) {
  return std::min(kNumbersInBatch / numbers_a_token, model::kTokensInPass);
}

}  // namespace

void MeasuredPairs::PromptMeans::add(const at::Tensor& values, const at::Tensor& ordinary, const Side& side) {
  const auto add = [](at::Tensor& sum, const at::Tensor& more) { sum = sum.defined() ? sum + more : more; };
  const at::Tensor counts = ordinary.to(values.device(), at::kDouble), numbers = values.to(at::kDouble);
  std::int64_t begin = 0;
  for (const auto& row : side.rows) {
    const std::int64_t length = std::ssize(row.tokens);
    add(sums_.first, numbers[begin].clone());
    ++prompts_;
    const at::Tensor counted = counts.narrow(0, begin, length).nonzero().squeeze(1) + begin;
    if (counted.numel() > 0) {
      add(sums_.others, numbers.index_select(0, counted).mean(0));
      ++with_others_;
    }
    begin += length;
  }
}

MeasuredPairs::Mean MeasuredPairs::PromptMeans::take() const {
  Mean mean;
  if (sums_.first.defined()) mean.first = sums_.first / static_cast<double>(prompts_);
  if (sums_.others.defined()) mean.others = sums_.others / static_cast<double>(with_others_);
  return mean;
}

MeasuredPairs::MeasuredPairs(const model::Transformer& transformer, bool probability, InForce in_force)
    : transformer_(transformer), probability_(probability), in_force_(std::move(in_force)) {}

void MeasuredPairs::each_batch(const std::vector<BoundPair>& pairs, std::int64_t numbers_a_token,
                               const std::function<void(std::size_t, std::size_t)>& batch) {
  const std::int64_t most = tokens_at_once(numbers_a_token);
  for (std::size_t first = 0; first < pairs.size();) {
    std::int64_t tokens = 0;
    std::size_t end = first;
    for (; end < pairs.size(); ++end) {
      const std::int64_t length = std::ssize(pairs[end].clean.tokens);
      if (end > first && tokens + length > most) break;
      tokens += length;
    }
    batch(first, end);
    first = end;
  }
}

std::int64_t MeasuredPairs::copies_at_once(const Batch& batch, std::int64_t numbers_a_token) {
  return std::max<std::int64_t>(1, tokens_at_once(numbers_a_token) / batch.size());
}

void MeasuredPairs::fill(Batch& batch, const std::vector<BoundPair>& pairs, std::size_t first, std::size_t end) const {
  std::vector<std::int64_t> raised, lowered;
  std::int64_t tokens = 0;
  for (std::size_t i = first; i < end; ++i) {
    const BoundPair& pair = pairs[i];
    const std::int64_t length = std::ssize(pair.clean.tokens);
    for (const bool is_clean : {true, false}) {
      const BoundPrompt& prompt = is_clean ? pair.clean : pair.corrupt;
      Side& side = is_clean ? batch.clean_side : batch.corrupt_side;
      side.rows.push_back({prompt.tokens, length});
      side.prompts.push_back(prompt.text);
    }
    tokens += length;
    batch.last.push_back(tokens - 1);
    raised.push_back(pair.raised);
    lowered.push_back(pair.lowered);
  }
  const at::Device device = transformer_.options().device;
  batch.raised = at::tensor(raised, at::kLong).to(device);
  if (!probability_) batch.lowered = at::tensor(lowered, at::kLong).to(device);
}

model::SiteVisitor* MeasuredPairs::begin(const Side& side, std::int64_t copies) const {
  if (!in_force_) return nullptr;
  std::vector<std::string> prompts;
  for (std::int64_t i = 0; i < copies; ++i) prompts.insert(prompts.end(), side.prompts.begin(), side.prompts.end());
  return in_force_(prompts);
}

void MeasuredPairs::require_nothing_in_force() const {
  if (in_force_) throw std::logic_error("parts are scored on a model with nothing in force");
}

at::Tensor MeasuredPairs::run(const Batch& batch, const Side& side, model::Pass pass, model::SiteVisitor* visitor,
                              model::SiteVisitor* in_force, std::int64_t copies) const {
  std::vector<at::Tensor> chunks;
  std::vector<model::Row> rows;
  std::vector<std::int64_t> last;
  for (std::int64_t i = 0; i < copies; ++i) {
    rows.insert(rows.end(), side.rows.begin(), side.rows.end());
    for (const std::int64_t index : batch.last) last.push_back(i * batch.size() + index);
  }
  Stacked stacked(in_force, visitor);
  pass.rows = &rows;
  pass.visitor = &stacked;
  pass.logits_at = last;
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits); };
  const auto layout = transformer_.forward(pass);
  ++passes_;
  tokens_ += layout.size();
  const auto repeated = [&](const at::Tensor& ids) { return ids.defined() ? ids.repeat({copies}) : ids; };
  return measure_of(at::cat(chunks), repeated(batch.raised), repeated(batch.lowered));
}

std::vector<double> MeasuredPairs::path_shares(std::int64_t steps) {
  if (steps == 0) return {1.0};
  std::vector<double> shares;
  for (std::int64_t k = 0; k < steps; ++k) shares.push_back(static_cast<double>(k) / static_cast<double>(steps));
  return shares;
}

std::vector<double> MeasuredPairs::numbers(const at::Tensor& values) {
  const at::Tensor kept = values.to(at::kDouble).cpu().contiguous();
  return {kept.const_data_ptr<double>(), kept.const_data_ptr<double>() + kept.numel()};
}

at::Tensor MeasuredPairs::even_weights() const {
  const auto pairs = static_cast<std::int64_t>(clean_.size());
  return at::full({1, pairs}, 1.0 / static_cast<double>(pairs), at::kDouble);
}

at::Tensor MeasuredPairs::token_weights(const at::Tensor& weights, const Batch& batch, std::int64_t first_pair) {
  std::vector<std::int64_t> lengths;
  for (const auto& row : batch.clean_side.rows) lengths.push_back(std::ssize(row.tokens));
  return weights.narrow(1, first_pair, std::ssize(lengths)).repeat_interleave(at::tensor(lengths, at::kLong), 1);
}

}  // namespace proviso::runtime

#include "runtime/model/attention.hpp"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "runtime/model/fused.hpp"
#include "runtime/model/linear.hpp"

namespace proviso::model {

namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

/// True where a query may look: own past keys first, then the new ones up to itself.
at::Tensor causal_mask(std::int64_t length, std::int64_t past) {
  return at::zeros({length, past + length})
      .masked_fill_(at::ones({length, past + length}, at::kBool).triu(past + 1), kMasked);
}

at::Tensor rows_at(const at::Tensor& x, const at::Tensor& index) {
  return index.defined() ? x.index_select(0, index) : x;
}

}  // namespace

Attention::Attention(const ModelConfig& config, const PackedLayout& layout, KeyValueCache::State* cache, bool append)
    : config_(config), layout_(layout), cache_(cache), append_(append) {
  if (cache_) {
    prefix_ = cache_->prefix_length;
    past_ = cache_->longest();
  }
  for (const PackedLayout::RowSpan& row : layout.rows) longest_new_ = std::max(longest_new_, row.length);
  make_groups();
}

void Attention::make_groups() {
  const auto own_past = [&](std::int64_t row) {
    return cache_ ? cache_->own_lengths[static_cast<std::size_t>(row)] : 0;
  };
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<std::int64_t>> rows_by_shape;
  const std::int64_t rows = static_cast<std::int64_t>(layout_.rows.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t length = layout_.rows[static_cast<std::size_t>(row)].length;
    if (length == 0) continue;
    rows_by_shape[{length, length == 1 ? 0 : own_past(row)}].push_back(row);
  }
  const at::Device device = layout_.tokens.device();
  for (auto& [shape, members] : rows_by_shape) {
    Group& group = groups_.emplace_back();
    group.length = shape.first;
    for (const std::int64_t row : members) group.past = std::max(group.past, own_past(row));
    if (static_cast<std::int64_t>(members.size()) < rows) {
      std::vector<std::int64_t> tokens;
      for (const std::int64_t row : members) {
        const std::int64_t begin = layout_.rows[static_cast<std::size_t>(row)].begin;
        for (std::int64_t i = 0; i < group.length; ++i) tokens.push_back(begin + i);
      }
      group.tokens = at::tensor(tokens, at::kLong).to(device);
      group.cache_rows = at::tensor(members, at::kLong).to(device);
    }
    if (group.past > 0) {
      group.mask = causal_mask(group.length, group.past).unsqueeze(0).unsqueeze(0);
      if (group.length == 1) {
        std::vector<std::int64_t> pasts;
        for (const std::int64_t row : members) pasts.push_back(own_past(row));
        const at::Tensor later = at::arange(group.past + 1).gt(at::tensor(pasts, at::kLong).unsqueeze(1));
        group.mask = at::zeros(later.sizes()).masked_fill_(later, kMasked).unsqueeze(1).unsqueeze(1);
      }
      group.mask = group.mask.to(device);
    }
    group.rows = std::move(members);
  }
}

const Attention::Layer* Attention::held_in(std::int64_t layer) const {
  return cache_ && static_cast<std::size_t>(layer) < cache_->layers.size()
             ? &cache_->layers[static_cast<std::size_t>(layer)]
             : nullptr;
}

at::Tensor Attention::operator()(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const PatternVisitor& see_pattern) {
  const bool differentiated = is_differentiated(q) || is_differentiated(k) || is_differentiated(v);
  if (see_pattern || differentiated || config_.attention_cap != 0 || !q.device().is_cpu()) {
    const at::Tensor z = attend_explicitly(held_in(layer), q, k, v, see_pattern);
    if (cache_ && append_) append(layer, k.detach(), v.detach());
    return z;
  }
  if (cache_ && append_) {
    append(layer, k, v);
    return attend_fused(cache_->layers[static_cast<std::size_t>(layer)], q, k, v);
  }
  return attend_fused(past_ > 0        ? extended(*held_in(layer), k, v)
                      : held_in(layer) ? *held_in(layer)
                                       : Layer(),
                      q, k, v);
}

void Attention::append(std::int64_t layer, const at::Tensor& k, const at::Tensor& v) {
  c10::NoGradGuard no_grad;
  place(cache_->reserve(layer, past_ + longest_new_, k), k, v);
}

Attention::Layer Attention::extended(const Layer& held, const at::Tensor& k, const at::Tensor& v) const {
  Layer copy = held;
  copy.k = at::constant_pad_nd(held.k.narrow(1, 0, past_), {0, 0, 0, longest_new_});
  copy.v = at::constant_pad_nd(held.v.narrow(1, 0, past_), {0, 0, 0, longest_new_});
  place(copy, k, v);
  return copy;
}

void Attention::place(Layer& held, const at::Tensor& k, const at::Tensor& v) const {
  const at::Tensor slots = layout_.row_of * held.k.size(1) + layout_.positions - prefix_;
  held.k.view({-1, k.size(1)}).index_copy_(0, slots, k);
  held.v.view({-1, v.size(1)}).index_copy_(0, slots, v);
}

void Attention::finish(std::int64_t first_layer, std::int64_t end_layer) {
  if (!cache_ || !append_) return;
  if (cache_->empty()) {
    cache_->first_layer = first_layer;
    cache_->end_layer = end_layer;
  } else {
    cache_->first_layer = std::max(cache_->first_layer, first_layer);
    cache_->end_layer = std::min(cache_->end_layer, end_layer);
  }
  for (std::size_t row = 0; row < layout_.rows.size(); ++row) cache_->own_lengths[row] += layout_.rows[row].length;
}

Attention::PartialAttention Attention::attend_group(const Group& group, const Layer& held, const at::Tensor& q,
                                                    const at::Tensor& k, const at::Tensor& v) const {
  const std::int64_t rows = static_cast<std::int64_t>(group.rows.size());
  const auto by_head = [&](const at::Tensor& fresh, const at::Tensor& buffer) {
    const at::Tensor own = group.past == 0 ? rows_at(fresh, group.tokens).unflatten(0, {rows, group.length})
                                           : rows_at(buffer, group.cache_rows).narrow(1, 0, group.past + group.length);
    return own.unflatten(2, {config_.kv_heads, config_.head_dim}).transpose(1, 2);
  };
  const at::Tensor keys = by_head(k, held.k), values = by_head(v, held.v);
  at::Tensor queries = rows_at(q, group.tokens);
  const bool single = group.length == 1;
  // One new token: the query heads of a key-value head are the rows of one product.
  queries =
      single
          ? queries.reshape({rows, config_.kv_heads, config_.heads / config_.kv_heads, config_.head_dim})
          : queries.unflatten(1, {config_.heads, config_.head_dim}).unflatten(0, {rows, group.length}).transpose(1, 2);
  std::optional<at::Tensor> mask;
  if (group.mask.defined()) mask = group.mask.to(q.dtype());
  auto [z, log_total] =
      at::_scaled_dot_product_flash_attention_for_cpu(queries, keys, values, 0.0, !mask.has_value() && !single, mask);
  if (single) return {z.reshape({rows, config_.heads, config_.head_dim}), log_total.reshape({rows, config_.heads})};
  return {z.transpose(1, 2).reshape({rows * group.length, config_.heads, config_.head_dim}),
          log_total.transpose(1, 2).reshape({rows * group.length, config_.heads})};
}

Attention::PartialAttention Attention::attend_prefix(const Layer& held, const at::Tensor& q) const {
  const std::int64_t n = q.size(0), kv_heads = config_.kv_heads, head_dim = config_.head_dim;
  const auto heads_first = [&](const at::Tensor& x) {
    return x.view({x.size(0), kv_heads, head_dim}).transpose(0, 1).unsqueeze(0);  // [1, kv_heads, prefix, head_dim]
  };
  const std::int64_t queries_a_head = config_.heads / kv_heads;
  const at::Tensor queries =
      q.reshape({n, kv_heads, queries_a_head, head_dim}).transpose(0, 1).reshape({1, kv_heads, -1, head_dim});
  const auto [z, log_total] =
      at::_scaled_dot_product_flash_attention_for_cpu(queries, heads_first(held.prefix_k), heads_first(held.prefix_v));
  return {z.reshape({kv_heads, n, queries_a_head, head_dim}).transpose(0, 1).reshape({n, config_.heads, head_dim}),
          log_total.reshape({kv_heads, n, queries_a_head}).transpose(0, 1).reshape({n, config_.heads})};
}

at::Tensor Attention::attend_fused(const Layer& held, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v) const {
  PartialAttention own;
  if (groups_.size() == 1 && !groups_[0].tokens.defined()) {
    own = attend_group(groups_[0], held, q, k, v);
  } else {
    own.z = at::empty({q.size(0), config_.heads, config_.head_dim}, q.options());
    own.log_total = at::empty({q.size(0), config_.heads}, q.options().dtype(at::kFloat));
    for (const Group& group : groups_) {
      const PartialAttention part = attend_group(group, held, q, k, v);
      own.z.index_copy_(0, group.tokens, part.z);
      own.log_total.index_copy_(0, group.tokens, part.log_total);
    }
  }
  if (prefix_ > 0) {
    // One softmax over both parts: each part's share is its denominator's.
    const PartialAttention shared = attend_prefix(held, q);
    const at::Tensor share = at::sigmoid(shared.log_total - own.log_total).unsqueeze(-1);
    own.z = at::lerp(own.z.to(at::kFloat), shared.z.to(at::kFloat), share).to(q.dtype());
  }
  return own.z.view({q.size(0), config_.query_width()});
}

void Attention::make_padding() {
  const std::int64_t rows = static_cast<std::int64_t>(layout_.rows.size());
  padding_.uniform = true;
  const std::int64_t length = longest_new_, keys = prefix_ + past_ + length;
  std::vector<std::int64_t> tokens, slots;
  at::Tensor mask = at::full({rows, 1, 1, length, keys}, kMasked);
  for (std::int64_t row = 0; row < rows; ++row) {
    const PackedLayout::RowSpan& span = layout_.rows[static_cast<std::size_t>(row)];
    const std::int64_t own_past = span.first_position - prefix_;
    padding_.uniform = padding_.uniform && span.length == length && own_past == past_;
    for (std::int64_t i = 0; i < length; ++i) tokens.push_back(i < span.length ? span.begin + i : 0);
    for (std::int64_t i = 0; i < span.length; ++i) slots.push_back(row * length + i);
    const at::Tensor of_row = mask[row][0][0];
    of_row.narrow(1, 0, prefix_ + own_past).zero_();
    of_row.narrow(1, prefix_ + past_, length).copy_(causal_mask(length, 0));
    padding_.columns.push_back(at::cat({at::arange(prefix_ + own_past), at::arange(span.length) + prefix_ + past_}));
  }
  padding_.tokens = at::tensor(tokens, at::kLong).to(layout_.tokens.device());
  padding_.slots = at::tensor(slots, at::kLong).to(layout_.tokens.device());
  padding_.mask = mask.to(layout_.tokens.device());
}

at::Tensor Attention::show_patterns(const at::Tensor& pattern, const PatternVisitor& see_pattern) const {
  std::vector<at::Tensor> rows;  // each [heads, length, keys]
  for (std::size_t row = 0; row < layout_.rows.size(); ++row) {
    const std::int64_t length = layout_.rows[row].length;
    const at::Tensor columns = padding_.columns[row].to(pattern.device());
    at::Tensor shown = pattern.select(0, static_cast<std::int64_t>(row)).narrow(1, 0, length).index_select(2, columns);
    if (length > 0) see_pattern(static_cast<std::int64_t>(row), shown);
    const at::Tensor blank = at::zeros({pattern.size(1), length, pattern.size(3)}, pattern.options());
    rows.push_back(at::constant_pad_nd(blank.index_copy(2, columns, shown), {0, 0, 0, longest_new_ - length}));
  }
  return at::stack(rows);
}

at::Tensor Attention::attend_explicitly(const Layer* held, const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const PatternVisitor& see_pattern) {
  if (!padding_.tokens.defined()) make_padding();
  const std::int64_t rows = static_cast<std::int64_t>(layout_.rows.size()), length = longest_new_;
  const std::int64_t kv_heads = config_.kv_heads, group = config_.heads / kv_heads, head_dim = config_.head_dim;
  const auto padded = [&](const at::Tensor& x, std::int64_t heads) {
    return x.index_select(0, padding_.tokens).view({rows, length, kv_heads, heads, head_dim});
  };
  // [rows, kv_heads, group · length, …]: the query heads of a key-value head are rows of one product.
  const at::Tensor queries = (padded(q, group) / std::sqrt(static_cast<double>(head_dim)))
                                 .permute({0, 2, 3, 1, 4})
                                 .reshape({rows, kv_heads, group * length, head_dim});
  const at::Tensor keys = padded(k, 1).squeeze(3).permute({0, 2, 3, 1});
  const at::Tensor values = padded(v, 1).squeeze(3).transpose(1, 2);
  const auto past = [&](const at::Tensor& buffer) {
    return buffer.narrow(1, 0, past_).view({rows, past_, kv_heads, head_dim}).transpose(1, 2);
  };
  const auto prefix = [&](const at::Tensor& shared) {
    return shared.view({prefix_, kv_heads, head_dim}).transpose(0, 1);  // [kv_heads, prefix, head_dim]
  };
  // [rows, kv_heads, n, d] <-> [kv_heads, rows · n, d]: one product a kv head, no copies of the prefix.
  const auto kv_first = [&](const at::Tensor& x) { return x.transpose(0, 1).reshape({kv_heads, -1, x.size(-1)}); };
  const auto rows_first = [&](const at::Tensor& x) {
    return x.view({kv_heads, rows, group * length, x.size(-1)}).transpose(0, 1);
  };

  std::vector<at::Tensor> scores;
  if (prefix_ > 0) scores.push_back(rows_first(at::bmm(kv_first(queries), prefix(held->prefix_k).transpose(1, 2))));
  if (past_ > 0) scores.push_back(at::matmul(queries, past(held->k).transpose(2, 3)));
  scores.push_back(at::matmul(queries, keys));
  const at::Tensor capped = soft_cap(at::cat(scores, -1).to(at::kFloat), config_.attention_cap);
  at::Tensor pattern = at::softmax(capped.unflatten(2, {group, length}) + padding_.mask, -1);
  if (see_pattern) {
    const std::int64_t all = pattern.size(-1);
    pattern = show_patterns(pattern.reshape({rows, config_.heads, length, all}), see_pattern)
                  .view({rows, kv_heads, group, length, all});
  }
  pattern = pattern.to(v.dtype()).flatten(2, 3);
  at::Tensor z = at::matmul(pattern.narrow(-1, prefix_ + past_, length), values);
  if (past_ > 0) z = z + at::matmul(pattern.narrow(-1, prefix_, past_), past(held->v));
  if (prefix_ > 0) z = z + rows_first(at::bmm(kv_first(pattern.narrow(-1, 0, prefix_)), prefix(held->prefix_v)));
  z = z.unflatten(2, {group, length}).permute({0, 3, 1, 2, 4}).reshape({rows * length, config_.query_width()});
  return padding_.uniform ? z : z.index_select(0, padding_.slots);
}

}  // namespace proviso::model

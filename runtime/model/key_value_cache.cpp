#include "runtime/model/key_value_cache.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <stdexcept>

namespace proviso::model {

namespace {

constexpr std::int64_t kSmallestCapacity = 32;

}  // namespace

std::int64_t KeyValueCache::State::longest() const {
  return own_lengths.empty() ? 0 : *std::max_element(own_lengths.begin(), own_lengths.end());
}

KeyValueCache::State::Layer& KeyValueCache::State::reserve(std::int64_t layer, std::int64_t capacity,
                                                           const at::Tensor& like) {
  if (layers.size() <= static_cast<std::size_t>(layer)) layers.resize(static_cast<std::size_t>(layer) + 1);
  Layer& held = layers[static_cast<std::size_t>(layer)];
  const std::int64_t present = held.k.defined() ? held.k.size(1) : 0;
  if (present >= capacity) return held;
  const std::int64_t room = std::max({capacity, 2 * present, kSmallestCapacity});
  const std::int64_t kept = longest();
  for (at::Tensor* buffer : {&held.k, &held.v}) {
    // Zeros: a masked key of NaN bits would spoil the sum that its weight 0 leaves it out of.
    at::Tensor grown = at::zeros({rows(), room, like.size(1)}, like.options());
    if (buffer->defined() && kept > 0) grown.narrow(1, 0, kept).copy_(buffer->narrow(1, 0, kept));
    *buffer = grown;
  }
  return held;
}

KeyValueCache::KeyValueCache() : state(std::make_unique<State>()) {}
KeyValueCache::~KeyValueCache() = default;
KeyValueCache::KeyValueCache(KeyValueCache&&) noexcept = default;
KeyValueCache& KeyValueCache::operator=(KeyValueCache&&) noexcept = default;

KeyValueCache KeyValueCache::fork(std::int64_t count) const {
  if (rows() != 1) throw std::logic_error("only a cache of one row can be forked");
  KeyValueCache forked;
  forked.state->prefix_length = length(0);
  forked.state->own_lengths.assign(static_cast<std::size_t>(count), 0);
  forked.state->first_layer = state->first_layer;
  forked.state->end_layer = state->end_layer;
  const std::int64_t own = state->own_lengths[0];
  const auto joined = [own](const at::Tensor& prefix, const at::Tensor& buffer) {
    if (own == 0) return prefix;
    const at::Tensor tail = buffer[0].narrow(0, 0, own);
    return prefix.defined() ? at::cat({prefix, tail}) : tail;
  };
  for (const State::Layer& layer : state->layers) {
    State::Layer& copy = forked.state->layers.emplace_back();
    if (!layer.k.defined() && !layer.prefix_k.defined()) continue;
    copy.prefix_k = joined(layer.prefix_k, layer.k);
    copy.prefix_v = joined(layer.prefix_v, layer.v);
  }
  return forked;
}

KeyValueCache first_tokens(const KeyValueCache& cache, std::int64_t tokens) {
  if (cache.rows() != 1 || cache.state->prefix_length > 0 || tokens > cache.length(0))
    throw std::logic_error("only a cache of one row of its own can be cut");
  KeyValueCache cut;
  *cut.state = *cache.state;  // what lies past a row's length is not read
  cut.state->own_lengths[0] = tokens;
  return cut;
}

KeyValueCache KeyValueCache::select(const std::vector<std::int64_t>& rows) const {
  KeyValueCache selected;
  selected.state->prefix_length = state->prefix_length;
  selected.state->first_layer = state->first_layer;
  selected.state->end_layer = state->end_layer;
  for (const std::int64_t row : rows) selected.state->own_lengths.push_back(state->own_lengths.at(row));
  const at::Tensor index = at::tensor(rows, at::kLong);
  for (const State::Layer& layer : state->layers) {
    State::Layer& copy = selected.state->layers.emplace_back(layer);
    if (!layer.k.defined()) continue;
    const at::Tensor where = index.to(layer.k.device());
    copy.k = layer.k.index_select(0, where);
    copy.v = layer.v.index_select(0, where);
  }
  return selected;
}

std::int64_t KeyValueCache::length(std::int64_t row) const {
  return state->prefix_length + state->own_lengths.at(static_cast<std::size_t>(row));
}

std::int64_t KeyValueCache::rows() const { return state->rows(); }

}  // namespace proviso::model

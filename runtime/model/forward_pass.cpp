#include "runtime/model/forward_pass.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "runtime/model/fused.hpp"
#include "runtime/model/linear.hpp"
#include "runtime/model/reading_visitor.hpp"

namespace proviso::model {

namespace {

using dsl::SiteKind;

constexpr std::size_t kSiteKinds = static_cast<std::size_t>(SiteKind::logits) + 1;

std::size_t site_index(SiteKind kind, std::int64_t layer) {
  return static_cast<std::size_t>(layer + 1) * kSiteKinds + static_cast<std::size_t>(kind);
}

/// Rows of logits at a time: 50 MB at a vocabulary of 49,152.
constexpr std::int64_t kLogitsChunk = 256;

PackedLayout pack(const ModelConfig& config, const Weights& weights, const Pass& pass) {
  PackedLayout layout;
  std::vector<std::int64_t> tokens, positions, row_of;
  const KeyValueCache* cache = pass.cache;
  for (std::size_t r = 0; r < pass.rows->size(); ++r) {
    const Row& row = (*pass.rows)[r];
    const std::int64_t length = static_cast<std::int64_t>(row.tokens.size());
    const std::int64_t first = cache ? cache->length(static_cast<std::int64_t>(r)) : 0;
    layout.rows.push_back({static_cast<std::int64_t>(tokens.size()), length, first, row.prompt_length});
    if (first + length > config.context) {
      throw InputError("a text of " + std::to_string(first + length) + " tokens does not fit the model's context of " +
                       std::to_string(config.context) + "; shorten it");
    }
    for (std::int64_t i = 0; i < length; ++i) {
      const std::int64_t token = row.tokens[static_cast<std::size_t>(i)];
      if (token < 0 || token >= config.vocabulary) {
        throw InputError("token " + std::to_string(token) + " is not in the model's vocabulary of " +
                         std::to_string(config.vocabulary));
      }
      tokens.push_back(token);
      positions.push_back(first + i);
      row_of.push_back(static_cast<std::int64_t>(r));
    }
  }
  const at::Device device = weights.of(TensorRole::token_embedding).device();
  layout.tokens = at::tensor(tokens, at::kLong).to(device);
  layout.positions = at::tensor(positions, at::kLong).to(device);
  layout.row_of = at::tensor(row_of, at::kLong).to(device);
  return layout;
}

/// The cache, with a row for each of the pass.
KeyValueCache::State* cache_of(const ModelConfig& config, const Pass& pass) {
  if (!pass.cache) return nullptr;
  KeyValueCache::State& state = *pass.cache->state;
  if (state.rows() == 0) state.own_lengths.assign(pass.rows->size(), 0);
  if (state.rows() != static_cast<std::int64_t>(pass.rows->size())) {
    throw std::logic_error("a pass needs as many rows as its cache");
  }
  const std::int64_t first = pass.start_after ? *pass.start_after + 1 : 0;
  const std::int64_t end = pass.stop_after && pass.stop_after->layer >= 0 ? pass.stop_after->layer : config.layers;
  if (!state.empty() && (first < state.first_layer || end > state.end_layer)) {
    throw std::logic_error("a pass needs layers that its cache does not hold");
  }
  return &state;
}

StreamReader* reader_of(const Pass& pass) {
  auto* visitor = dynamic_cast<ReadingVisitor*>(pass.visitor);
  return pass.reader || !visitor ? pass.reader : visitor->reader();
}

ModelConfig attention_config(ModelConfig config, const StreamReader* reader) {
  if (reader) config.kv_heads = config.heads;
  return config;
}

/// x Wᵀ + b, one head's rows of W an input: x [n, heads, in]; weight [own heads · head_dim, in], where several inputs
/// in turn share one head of it. Returns [n, heads · head_dim].
at::Tensor project_heads(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t head_dim) {
  const std::int64_t n = x.size(0), heads = x.size(1), own = weight.size(0) / head_dim, shared = heads / own;
  // [own, n · shared, in], a product each
  const at::Tensor inputs = x.unflatten(1, {own, shared}).transpose(0, 1).reshape({own, n * shared, x.size(2)});
  at::Tensor out = at::bmm(inputs, weight.view({own, head_dim, -1}).transpose(1, 2));
  if (bias.defined()) out = out + bias.view({own, 1, head_dim});
  return out.view({own, n, shared * head_dim}).transpose(0, 1).reshape({n, heads * head_dim});
}

/// The layout of some tokens of a pass: rows may have gaps, which `positions` shows.
PackedLayout sublayout(const PackedLayout& layout, const at::Tensor& packed) {
  PackedLayout some;
  some.tokens = layout.tokens.index_select(0, packed);
  some.positions = layout.positions.index_select(0, packed);
  some.row_of = layout.row_of.index_select(0, packed);
  const at::Tensor rows = some.row_of.cpu();
  const auto row_of = rows.accessor<std::int64_t, 1>();
  std::int64_t at = 0;
  for (std::size_t row = 0; row < layout.rows.size(); ++row) {
    PackedLayout::RowSpan span = layout.rows[row];
    span.begin = at;
    while (at < row_of.size(0) && row_of[at] == static_cast<std::int64_t>(row)) ++at;
    span.length = at - span.begin;
    if (span.length > 0) span.first_position = some.positions[span.begin].item<std::int64_t>();
    some.rows.push_back(span);
  }
  return some;
}

}  // namespace

ForwardPass::ForwardPass(const ModelConfig& config, const Weights& weights, const Pass& pass)
    : config_(config),
      family_(family_table(config.family)),
      weights_(weights),
      pass_(pass),
      reader_(reader_of(pass)),
      layout_((cache_of(config, pass), pack(config, weights, pass))),
      attention_config_(attention_config(config, reader_)),
      attention_(attention_config_, layout_, pass.cache ? pass.cache->state.get() : nullptr, pass.append) {
  if (family_.positions == Positions::rotary) rotary_ = rotary_table(config, layout_.positions);
  wanted_.resize(static_cast<std::size_t>(config.layers + 1) * kSiteKinds);
  if (!pass.visitor) return;
  for (std::int64_t layer = -1; layer < config.layers; ++layer) {
    for (std::size_t index = 0; index < kSiteKinds; ++index) {
      const dsl::Site site{static_cast<SiteKind>(index), layer};
      if (site.kind == SiteKind::resid_mid && config.parallel_blocks) continue;
      if (dsl::site_has_layer(site.kind) == (layer >= 0) && dsl::canonical(site) == site) {
        wanted_[site_index(site.kind, layer)] = pass.visitor->wants(site);
      }
    }
  }
}

bool ForwardPass::wants(SiteKind kind, std::int64_t layer) const { return wanted_[site_index(kind, layer)]; }

bool ForwardPass::ends_at(SiteKind kind, std::int64_t layer) const {
  return pass_.stop_after && dsl::canonical(*pass_.stop_after) == dsl::Site{kind, layer};
}

bool ForwardPass::reach(SiteKind kind, std::int64_t layer, at::Tensor& x) {
  if (wants(kind, layer)) {
    x = x.contiguous();
    pass_.visitor->visit({kind, layer}, x, layout_);
  }
  return !ends_at(kind, layer);
}

PackedLayout ForwardPass::run() {
  const std::int64_t first = pass_.start_after ? *pass_.start_after + 1 : 0;
  std::int64_t layer = first;
  bool goes_on = true;
  if (pass_.start_after) {
    stream_ = pass_.start_values;
  } else {
    goes_on = embed();
  }
  while (goes_on && layer < config_.layers) {
    goes_on = run_layer(layer);
    if (goes_on || ends_at(SiteKind::resid_post, layer)) ++layer;
  }
  attention_.finish(first, layer);
  if (goes_on) unembed();
  return layout_;
}

bool ForwardPass::embed() {
  stream_ = at::embedding(weights_.of(TensorRole::token_embedding), layout_.tokens);
  // Rounded to the model's type first, as the reference does.
  if (config_.embedding_scale != 1)
    stream_ = stream_ * at::scalar_tensor(config_.embedding_scale).to(stream_.options());
  if (family_.positions == Positions::table) {
    stream_ = stream_ + at::embedding(weights_.of(TensorRole::position_embedding), layout_.positions);
  }
  stream_is_own_ = !wants(SiteKind::embed, -1) && !reader_ && !is_differentiated(stream_);
  return reach(SiteKind::embed, -1, stream_);
}

bool ForwardPass::only_logits_follow(std::int64_t layer) const {
  if (layer + 1 < config_.layers || pass_.stop_after || !pass_.logits_at || reader_ || wants(SiteKind::final_norm, -1))
    return false;
  for (const SiteKind kind : {SiteKind::attn_out, SiteKind::resid_mid, SiteKind::mlp_pre, SiteKind::mlp_post,
                              SiteKind::mlp_out, SiteKind::resid_post}) {
    if (wants(kind, layer)) return false;
  }
  return true;
}

bool ForwardPass::run_layer(std::int64_t layer) {
  at::Tensor z, neurons;
  if (!attend(layer, z)) return false;
  if (only_logits_follow(layer)) {
    kept_ = at::tensor(*pass_.logits_at, at::kLong).to(z.device());
    stream_ = stream_.index_select(0, kept_);
    z = z.index_select(0, kept_);
  }
  const auto read_by_mlp = [&] {
    return norm(read(SiteKind::mlp_pre, layer), TensorRole::mlp_norm, TensorRole::mlp_norm_bias, layer);
  };
  // Before the attention's output joins the stream, where the two run in parallel.
  at::Tensor x = config_.parallel_blocks ? read_by_mlp() : at::Tensor();
  if (!add_to_stream(SiteKind::attn_out, SiteKind::resid_mid, layer, z,
                     {{TensorRole::attention_out, TensorRole::attention_out_bias}, TensorRole::attention_post_norm}))
    return false;
  if (!x.defined()) x = read_by_mlp();
  return run_mlp(layer, x, neurons) &&
         add_to_stream(SiteKind::mlp_out, SiteKind::resid_post, layer, neurons,
                       {{TensorRole::down, TensorRole::down_bias}, TensorRole::mlp_post_norm});
}

at::Tensor ForwardPass::read(SiteKind reader, std::int64_t layer) {
  return reader_ ? reader_->input(reader, layer, stream_) : stream_;
}

ForwardPass::Parts ForwardPass::queries_keys_values(std::int64_t layer) const {
  const at::Tensor x = norm(stream_, TensorRole::attention_norm, TensorRole::attention_norm_bias, layer);
  if (const TensorSpec* fused = family_.find(TensorRole::query_key_value)) {
    const at::Tensor out = apply(x, {TensorRole::query_key_value, TensorRole::query_key_value_bias}, layer);
    return {fused_part(out, *fused, 0, 1), fused_part(out, *fused, 1, 1), fused_part(out, *fused, 2, 1)};
  }
  return apply(x,
               {{TensorRole::query, TensorRole::query_bias},
                {TensorRole::key, TensorRole::key_bias},
                {TensorRole::value, TensorRole::value_bias}},
               layer);
}

at::Tensor ForwardPass::fused_part(const at::Tensor& of_all, const TensorSpec& spec, std::int64_t part,
                                   std::int64_t dim) const {
  if (spec.rows == Rows::by_head) {
    return of_all.unflatten(dim, {config_.heads, 3, config_.head_dim}).select(dim + 1, part).flatten(dim, dim + 1);
  }
  const std::int64_t queries = config_.query_width(), keys = config_.kv_width();
  return part == 0 ? of_all.narrow(dim, 0, queries) : of_all.narrow(dim, queries + (part - 1) * keys, keys);
}

ForwardPass::Parts ForwardPass::separate_queries_keys_values(std::int64_t layer) {
  static constexpr SiteKind kReaders[] = {SiteKind::q, SiteKind::k, SiteKind::v};
  static constexpr Map kMaps[] = {{TensorRole::query, TensorRole::query_bias},
                                  {TensorRole::key, TensorRole::key_bias},
                                  {TensorRole::value, TensorRole::value_bias}};
  const TensorSpec* fused = family_.find(TensorRole::query_key_value);
  Parts parts;
  for (std::size_t i = 0; i < std::size(kReaders); ++i) {
    at::Tensor weight = weights_.of(fused ? TensorRole::query_key_value : kMaps[i].weight, layer);
    at::Tensor bias = weights_.of(fused ? TensorRole::query_key_value_bias : kMaps[i].bias, layer);
    if (fused) {
      weight = fused_part(weight, *fused, static_cast<std::int64_t>(i), 0);
      if (bias.defined()) bias = fused_part(bias, *fused, static_cast<std::int64_t>(i), 0);
    }
    const at::Tensor input = reader_->input(kReaders[i], layer, stream_);  // [n, heads, width]
    const at::Tensor normed =
        norm(input.reshape({-1, config_.width}), TensorRole::attention_norm, TensorRole::attention_norm_bias, layer);
    parts.push_back(project_heads(normed.view(input.sizes()), weight, bias, config_.head_dim));
  }
  return parts;
}

bool ForwardPass::attend(std::int64_t layer, at::Tensor& z) {
  Parts qkv = reader_ ? separate_queries_keys_values(layer) : queries_keys_values(layer);
  at::Tensor &q = qkv[0], &k = qkv[1], &v = qkv[2];
  if (!reach(SiteKind::q, layer, q) || !reach(SiteKind::k, layer, k) || !reach(SiteKind::v, layer, v)) return false;
  const bool normed = family_.find(TensorRole::query_norm) != nullptr;
  if (normed) {
    q = norm_heads(q, TensorRole::query_norm, layer);
    k = norm_heads(k, TensorRole::key_norm, layer);
  }
  if (family_.positions == Positions::rotary) {
    q = rotate(q, rotary_, config_.head_dim, !normed && wants(SiteKind::q, layer));
    k = rotate(k, rotary_, config_.head_dim, !normed && wants(SiteKind::k, layer));
  }
  if (config_.query_scale != 1) q = q * config_.query_scale;
  Attention::PatternVisitor see_pattern;
  if (wants(SiteKind::pattern, layer)) {
    see_pattern = [&](std::int64_t, at::Tensor& pattern) {
      pass_.visitor->visit({SiteKind::pattern, layer}, pattern, layout_);
    };
  }
  z = attention_(layer, q, k, v, see_pattern);
  return !ends_at(SiteKind::pattern, layer) && reach(SiteKind::z, layer, z);
}

bool ForwardPass::run_mlp(std::int64_t layer, const at::Tensor& x, at::Tensor& neurons) {
  if (family_.mlp == MlpKind::gated) {
    Parts maps = apply(x, {{TensorRole::gate, TensorRole::gate_bias}, {TensorRole::up, TensorRole::up_bias}}, layer);
    if (!reach(SiteKind::mlp_pre, layer, maps[0])) return false;
    neurons = activate(family_.activation, maps[0], maps[1]);
  } else {
    at::Tensor pre = apply(x, {TensorRole::up, TensorRole::up_bias}, layer);
    if (!reach(SiteKind::mlp_pre, layer, pre)) return false;
    neurons = activate(family_.activation, pre, {});
  }
  return reach(SiteKind::mlp_post, layer, neurons);
}

bool ForwardPass::add_to_stream(SiteKind writer, SiteKind result, std::int64_t layer, const at::Tensor& input,
                                Output output) {
  at::Tensor written = apply(input, output.map, layer);
  if (family_.find(output.post_norm)) written = norm(written, output.post_norm, output.post_norm, layer);
  if (!reach(writer, layer, written)) return false;
  if (stream_is_own_ && !is_differentiated(written)) {
    stream_.add_(written);
  } else {
    stream_ = stream_ + written;
  }
  stream_is_own_ = !wants(result, layer) && !reader_ && !is_differentiated(stream_);
  return reach(result, layer, stream_);
}

void ForwardPass::unembed() {
  const bool shown = wants(SiteKind::final_norm, -1);
  const bool no_logits = pass_.logits_at && pass_.logits_at->empty();
  if (no_logits && !shown) return;
  const at::Tensor packed = (pass_.logits_at ? at::tensor(*pass_.logits_at, at::kLong) : at::arange(layout_.size()))
                                .to(layout_.tokens.device());
  const bool some_tokens = pass_.logits_at && !kept_.defined();
  const at::Tensor stream = read(SiteKind::final_norm, -1);
  at::Tensor normed = some_tokens && !shown ? stream.index_select(0, packed) : stream;
  normed = norm(normed, TensorRole::final_norm, TensorRole::final_norm_bias, 0);
  if (!reach(SiteKind::final_norm, -1, normed) || no_logits) return;
  if (some_tokens && shown) normed = normed.index_select(0, packed);

  for (std::int64_t first = 0; first < normed.size(0); first += kLogitsChunk) {
    const std::int64_t count = std::min(kLogitsChunk, normed.size(0) - first);
    at::Tensor logits =
        soft_cap(project(normed.narrow(0, first, count), weights_.of(TensorRole::unembedding), {}).to(at::kFloat),
                 config_.logits_cap);
    if (wants(SiteKind::logits, -1)) {
      pass_.visitor->visit({SiteKind::logits, -1}, logits, sublayout(layout_, packed.narrow(0, first, count)));
    }
    if (pass_.on_logits) pass_.on_logits(first, logits);
  }
}

at::Tensor ForwardPass::norm(const at::Tensor& x, TensorRole gain, TensorRole bias, std::int64_t layer) const {
  const at::Tensor& weight = weights_.of(gain, layer);
  if (family_.norm == NormKind::rms) return rms_norm(x, weight, config_.norm_eps);
  if (family_.norm == NormKind::rms_above_one) return rms_norm_above_one(x, weight, config_.norm_eps);
  return at::layer_norm(x, {config_.width}, weight, weights_.of(bias, layer), config_.norm_eps);
}

at::Tensor ForwardPass::norm_heads(const at::Tensor& x, TensorRole gain, std::int64_t layer) const {
  return norm(x.reshape({-1, config_.head_dim}), gain, gain, layer).view(x.sizes());
}

at::Tensor ForwardPass::apply(const at::Tensor& x, Map map, std::int64_t layer) const {
  return project(x, weights_.of(map.weight, layer), weights_.of(map.bias, layer));
}

ForwardPass::Parts ForwardPass::apply(const at::Tensor& x, const std::vector<Map>& maps, std::int64_t layer) const {
  std::vector<LinearPart> parts;
  for (const Map& map : maps) parts.push_back({weights_.of(map.weight, layer), weights_.of(map.bias, layer)});
  return project_parts(x, parts);
}

}  // namespace proviso::model

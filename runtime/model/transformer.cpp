#include "runtime/model/transformer.hpp"

#include <ATen/ATen.h>

#include <utility>

#include "runtime/model/family.hpp"
#include "runtime/model/forward_pass.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::model {

struct Transformer::State {
  ModelCard card;
  Options options;
  const FamilyTable& family;
  Weights weights;
};

std::unique_ptr<Transformer> Transformer::load(const ModelCard& card, const Options& options) {
  return std::unique_ptr<Transformer>(new Transformer(std::make_unique<State>(
      State{card, options, family_table(card.config.family), Weights::load(card, options.dtype, options.device)})));
}

Transformer::Transformer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Transformer::~Transformer() = default;

const ModelConfig& Transformer::config() const { return state_->card.config; }
const Transformer::Options& Transformer::options() const { return state_->options; }
const ModelCard& Transformer::card() const { return state_->card; }

PackedLayout Transformer::forward(const Pass& pass) const {
  return ForwardPass(state_->card.config, state_->weights, pass).run();
}

at::Tensor Transformer::get(const std::string& name) const {
  const at::Tensor* tensor = state_->weights.find(name);
  return tensor ? *tensor : at::Tensor();
}

void Transformer::set(const std::string& name, at::Tensor value) { state_->weights.set(name, std::move(value)); }

std::vector<std::string> Transformer::names() const { return state_->weights.names(state_->card); }

bool Transformer::tied() const { return state_->weights.tied(); }

std::optional<LinearWriter> Transformer::writer(const dsl::Site& site) const {
  const auto map = [&](TensorRole weight, TensorRole bias, TensorRole post_norm) -> std::optional<LinearWriter> {
    if (state_->family.find(post_norm)) return std::nullopt;
    return LinearWriter{state_->family.name_of(weight, site.layer), state_->family.name_of(bias, site.layer)};
  };
  switch (dsl::canonical(site).kind) {
    case dsl::SiteKind::embed:
      return LinearWriter{embedding_name(), "", state_->card.config.embedding_scale};
    case dsl::SiteKind::attn_out:
      return map(TensorRole::attention_out, TensorRole::attention_out_bias, TensorRole::attention_post_norm);
    case dsl::SiteKind::mlp_out:
      return map(TensorRole::down, TensorRole::down_bias, TensorRole::mlp_post_norm);
    default:
      return std::nullopt;
  }
}

std::string Transformer::embedding_name() const { return state_->family.name_of(TensorRole::token_embedding); }
std::string Transformer::unembedding_name() const { return state_->family.name_of(TensorRole::unembedding); }
std::string Transformer::position_embedding_name() const {
  return state_->family.name_of(TensorRole::position_embedding);
}
at::Tensor Transformer::final_norm_gain() const {
  const at::Tensor& gain = state_->weights.of(TensorRole::final_norm);
  return state_->family.norm == NormKind::rms_above_one ? gain + 1 : gain;
}

}  // namespace proviso::model

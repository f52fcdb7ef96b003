#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/kept_values.hpp"
#include "editing/float_tensors.hpp"
#include "editing/weight_delta.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::bench {

/// How far edits one after another have come, beside the weights.
struct EditSequence {
  std::int64_t done = 0, refused = 0;
  double seconds = 0;
  std::vector<at::Tensor> spared;  ///< by layer, [d_in, facts] float64: the keys that alphaedit spares
};

/// A model that is edited, in float32, and where scores are read in bfloat16 a copy in it that follows.
class EditedModel {
 public:
  EditedModel(const model::ModelCard& card, at::Device device, bool narrow)
      : exact_(model::Transformer::load(card, {at::kFloat, device})) {
    if (narrow) narrow_ = model::Transformer::load(card, {at::kBFloat16, device});
  }

  model::Transformer& exact() const { return *exact_; }
  const model::Transformer* narrow() const { return narrow_.get(); }
  const model::Transformer& read_on() const { return narrow_ ? *narrow_ : *exact_; }

  void apply(const std::vector<editing::WeightDelta>& deltas) {
    for (const auto& delta : deltas) set(delta.tensor, editing::changed_tensor(exact_->get(delta.tensor), delta));
  }

  /// As loaded.
  void restore() {
    for (const auto& [name, value] : std::exchange(originals_, {})) put(name, value);
  }

  /// `of` says what it is a sequence of: facts, settings, the model.
  void keep(const EditSequence& sequence, const std::string& path, const std::string& of) const {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& [name, original] : originals_) tensors.emplace_back(name, exact_->get(name));
    for (std::size_t i = 0; i < sequence.spared.size(); ++i)
      tensors.emplace_back(std::string(kSpared) + std::to_string(i), sequence.spared[i]);
    editing::write_float_tensors(path, tensors,
                                 {{"of", of},
                                  {"done", std::to_string(sequence.done)},
                                  {"refused", std::to_string(sequence.refused)},
                                  {"seconds", std::to_string(sequence.seconds)}});
  }

  /// Puts the weights to what they were when `path` was kept; a sequence of none where it was not.
  EditSequence resume(const std::string& path, const std::string& of) {
    EditSequence sequence;
    if (!std::filesystem::exists(path)) return sequence;
    const auto file = read_kept(path, of);
    sequence.done = std::stoll(file.metadata.at("done"));
    sequence.refused = std::stoll(file.metadata.at("refused"));
    sequence.seconds = std::stod(file.metadata.at("seconds"));
    std::map<std::int64_t, at::Tensor> spared;
    for (const auto& stored : file.tensors) {
      const auto values = model::stored_values(stored);
      if (stored.name.starts_with(kSpared)) {
        spared[std::stoll(stored.name.substr(kSpared.size()))] = values.to(exact_->options().device, at::kDouble);
      } else {
        set(stored.name, values);
      }
    }
    for (const auto& [layer, keys] : spared) sequence.spared.push_back(keys);
    return sequence;
  }

 private:
  static constexpr std::string_view kSpared = "spared.";

  void set(const std::string& name, const at::Tensor& value) {
    originals_.emplace(name, exact_->get(name));
    put(name, value);
  }

  void put(const std::string& name, const at::Tensor& value) {
    exact_->set(name, value);
    if (narrow_) narrow_->set(name, value.to(at::kBFloat16));
  }

  std::unique_ptr<model::Transformer> exact_, narrow_;
  std::map<std::string, at::Tensor> originals_;
};

}  // namespace proviso::bench

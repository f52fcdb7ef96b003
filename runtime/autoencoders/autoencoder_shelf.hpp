#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/autoencoders/autoencoder.hpp"

namespace proviso::runtime {

/// The autoencoders that rules name, each loaded once, when it is first used.
class AutoencoderShelf {
 public:
  /// `cards` by folder; outlives the shelf.
  AutoencoderShelf(const std::map<std::string, AutoencoderCard>& cards, at::Device device)
      : cards_(cards), device_(device) {}

  std::shared_ptr<const Autoencoder> get(const std::string& folder) {
    auto& loaded = loaded_[folder];
    if (!loaded) loaded = Autoencoder::load(cards_.at(folder), device_);
    return loaded;
  }
  std::vector<std::shared_ptr<const Autoencoder>> get(const std::vector<std::string>& folders) {
    std::vector<std::shared_ptr<const Autoencoder>> all;
    for (const auto& folder : folders) all.push_back(get(folder));
    return all;
  }

 private:
  const std::map<std::string, AutoencoderCard>& cards_;
  at::Device device_;
  std::map<std::string, std::shared_ptr<const Autoencoder>> loaded_;
};

}  // namespace proviso::runtime

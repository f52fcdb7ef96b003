#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/autoencoders/autoencoder.hpp"

namespace proviso::runtime {

/// Writes cfg.json and sae_weights.safetensors, as SAELens 6 does, into a folder that exists. What the card says of the
/// site goes into `metadata`, beside what that holds already.
void write_autoencoder(const std::string& folder, const Autoencoder& autoencoder, nlohmann::ordered_json metadata);

}  // namespace proviso::runtime

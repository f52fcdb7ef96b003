#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/autoencoders/autoencoder.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

/// Where many features stand at once that need no building: the neurons of a layer, the latents of an autoencoder.
struct UnitSite {
  dsl::Site site;
  std::shared_ptr<const Autoencoder> autoencoder;  ///< null: the site's own coordinates
};

struct UnitReading {
  at::Tensor values;  // [prompts, units] float32
  /// A prompt whose token is an attention sink here, or which has no other; nothing where every prompt can be read.
  std::optional<std::size_t> sink;
};

/// What all units read on each prompt: at its last token, or their mean over its ordinary positions (`token all`).
/// One answer a site, in their order.
std::vector<UnitReading> read_units(const model::Transformer& transformer, const BoundPrompts& prompts,
                                    const std::vector<UnitSite>& sites, dsl::TokenChoice::Kind token,
                                    const Progress& progress = {});

}  // namespace proviso::runtime

#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/autoencoders/autoencoder.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// Total negative log-likelihood of a row's tokens but the first, nats.
struct SplicedLoss {
  double reconstructed = 0;  ///< with the autoencoder's reconstruction in place of what it reads
  double ablated = 0;        ///< with the mean over all rows there
};

/// The visitor of a pass over `count` rows from `first` on, or null: the hooks that are in force beside the splice.
using VisitorOfRows = std::function<model::SiteVisitor*(std::size_t first, std::size_t count)>;

/// Losses with the autoencoder's site spliced. Sinks stay as they are, in either, and are no part of the mean; of a
/// transcoder what it writes is replaced. Rows start at position 0.
std::vector<SplicedLoss> spliced_losses(const model::Transformer& transformer, const Autoencoder& autoencoder,
                                        const std::vector<model::Row>& rows, const VisitorOfRows& visitor = {});

/// The same loss of the model as it is.
std::vector<double> text_losses(const model::Transformer& transformer, const std::vector<model::Row>& rows);

/// 1 − Σ(reconstructed − clean) / Σ(ablated − clean): 1 where the reconstruction serves the model as well as what it
/// stands for, 0 where no better than the mean.
double loss_recovered(const std::vector<double>& clean, const std::vector<SplicedLoss>& spliced);

}  // namespace proviso::runtime

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/autoencoders/activation_pool.hpp"

namespace proviso::runtime {

/// What training has come to: all that the next step depends on.
struct TrainingState {
  // Of vectors scaled to a mean square of 1.
  at::Tensor W_enc, W_dec;                 // [latents, d] float32
  at::Tensor b_enc, b_dec;                 // [latents], [d]
  at::Tensor log_threshold;                // [latents], of JumpReLU; undefined otherwise
  std::vector<at::Tensor> means, squares;  // Adam's, of those above in order
  at::Tensor steps;                        // [] float32, as Adam counts them
  at::Tensor since;                        // [latents] float32: vectors since each last fired, at most 2^24
  double scale = 1;                        ///< a vector times this is what is trained on
  double variance = 1;                     ///< of the scaled vectors, per vector
  double threshold = 0;                    ///< of BatchTopK: the mean of what just fired, over recent batches
  std::int64_t step = 0;
  double recent_error = 0, recent = 0;  ///< squared errors and vectors, the last batches weighing most
  ActivationPool::Place place;

  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> all = {W_enc, W_dec, b_enc, b_dec};
    if (log_threshold.defined()) all.push_back(log_threshold);
    return all;
  }
};

/// Writes the state atomically. `identity` says of what it is a state.
void write_training_state(const std::string& path, const TrainingState& state,
                          const std::map<std::string, std::string>& identity);
/// Throws `InputError` where the file is damaged, or of something else, which it names.
TrainingState read_training_state(const std::string& path, const std::map<std::string, std::string>& identity,
                                  at::Device device);

}  // namespace proviso::runtime

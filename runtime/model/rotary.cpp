#include "runtime/model/rotary.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "runtime/model/kernels.hpp"

namespace proviso::model {

namespace {

/// Llama 3.1's rule: long wavelengths are stretched by `factor`, short ones kept, those between blended.
at::Tensor llama3_frequencies(const RopeScaling& rope, const at::Tensor& frequencies) {
  const double longest = static_cast<double>(rope.original_context) / rope.low_freq_factor;
  const double shortest = static_cast<double>(rope.original_context) / rope.high_freq_factor;
  const at::Tensor wavelengths = 2 * std::numbers::pi / frequencies;
  const at::Tensor stretched = frequencies / rope.factor;
  const at::Tensor share = (static_cast<double>(rope.original_context) / wavelengths - rope.low_freq_factor) /
                           (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor blended = (1 - share) * stretched + share * frequencies;
  return at::where(wavelengths > longest, stretched, at::where(wavelengths < shortest, frequencies, blended));
}

at::Tensor frequencies_of(const ModelConfig& config) {
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kFloat) / config.head_dim;
  const at::Tensor frequencies = 1.0 / at::pow(config.rope_theta, exponents);
  switch (config.rope.kind) {
    case RopeScaling::Kind::none:
      return frequencies;
    case RopeScaling::Kind::linear:
      return frequencies / config.rope.factor;
    case RopeScaling::Kind::llama3:
      return llama3_frequencies(config.rope, frequencies);
  }
  return frequencies;
}

}  // namespace

RotaryTable rotary_table(const ModelConfig& config, const at::Tensor& positions) {
  const at::Tensor frequencies = frequencies_of(config).to(positions.device());
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) * frequencies;
  return {at::cos(angles), at::sin(angles)};
}

at::Tensor rotate(at::Tensor x, const RotaryTable& table, std::int64_t head_dim, bool shared) {
  if (!is_differentiated(x) && kernels_run_on(x)) {
    if (shared) x = x.clone();
    rotate_in_place(x, table.cos, table.sin, head_dim);
    return x;
  }
  const std::int64_t n = x.size(0);
  const at::Tensor halves = x.reshape({n, x.size(1) / head_dim, 2, head_dim / 2});
  const at::Tensor first = halves.select(2, 0), second = halves.select(2, 1);
  const at::Tensor cos = table.cos.unsqueeze(1).to(x.dtype()), sin = table.sin.unsqueeze(1).to(x.dtype());
  return at::stack({first * cos - second * sin, second * cos + first * sin}, 2).view({n, x.size(1)});
}

}  // namespace proviso::model

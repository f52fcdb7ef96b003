#include "runtime/model/kernels.hpp"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>

// One body for each processor, chosen at start by the loader.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define PROVISO_FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PROVISO_FOR_EACH_CPU
#endif

namespace proviso::model {

namespace {

/// Rows that one thread takes at least: below, starting it costs more than it saves.
std::int64_t rows_per_task(std::int64_t row_elements) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, row_elements));
}

/// e^x to 2 ulp where |x| < 87, clamped beyond: 2^n · p(r), r = x − n ln 2, written so that it vectorises.
inline float exp_fast(float x) {
  x = x < -87.0f ? -87.0f : (x > 87.0f ? 87.0f : x);
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const std::int32_t exponent = (static_cast<std::int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &exponent, sizeof scale);
  return p * scale;
}

template <class T>
inline __attribute__((always_inline)) void silu_multiply_row(const T* gate, const T* up, T* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = static_cast<float>(gate[i]);
    out[i] = static_cast<T>(g / (1.0f + exp_fast(-g)) * static_cast<float>(up[i]));
  }
}

template <class T>
inline __attribute__((always_inline)) void rms_norm_row(const T* x, const T* gain, T* out, std::int64_t n, float eps) {
  constexpr std::int64_t kLanes = 16;
  float sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const float value = static_cast<float>(x[i + j]);
      sums[j] += value * value;
    }
  }
  float total = 0;
  for (; i < n; ++i) total += static_cast<float>(x[i]) * static_cast<float>(x[i]);
  for (const float sum : sums) total += sum;
  const float scale = 1.0f / std::sqrt(total / static_cast<float>(n) + eps);
  for (i = 0; i < n; ++i)
    out[i] = static_cast<T>(static_cast<float>(static_cast<T>(static_cast<float>(x[i]) * scale)) *
                            static_cast<float>(gain[i]));
}

template <class T>
inline __attribute__((always_inline)) void rotate_head(T* x, const float* cos, const float* sin, std::int64_t half) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float first = static_cast<float>(x[i]), second = static_cast<float>(x[i + half]);
    x[i] = static_cast<T>(first * cos[i] - second * sin[i]);
    x[i + half] = static_cast<T>(second * cos[i] + first * sin[i]);
  }
}

PROVISO_FOR_EACH_CPU void silu_multiply(const float* g, const float* u, float* o, std::int64_t n) {
  silu_multiply_row(g, u, o, n);
}
PROVISO_FOR_EACH_CPU void silu_multiply(const at::BFloat16* g, const at::BFloat16* u, at::BFloat16* o, std::int64_t n) {
  silu_multiply_row(g, u, o, n);
}
PROVISO_FOR_EACH_CPU void rms_norm(const float* x, const float* g, float* o, std::int64_t n, float eps) {
  rms_norm_row(x, g, o, n, eps);
}
PROVISO_FOR_EACH_CPU void rms_norm(const at::BFloat16* x, const at::BFloat16* g, at::BFloat16* o, std::int64_t n,
                                   float eps) {
  rms_norm_row(x, g, o, n, eps);
}
PROVISO_FOR_EACH_CPU void rotate(float* x, const float* c, const float* s, std::int64_t half) {
  rotate_head(x, c, s, half);
}
PROVISO_FOR_EACH_CPU void rotate(at::BFloat16* x, const float* c, const float* s, std::int64_t half) {
  rotate_head(x, c, s, half);
}

}  // namespace

bool is_differentiated(const at::Tensor& x) { return c10::GradMode::is_enabled() && x.requires_grad(); }

bool kernels_run_on(const at::Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

template <class Body>
void for_type(at::ScalarType type, Body&& body) {
  if (type == at::kFloat) {
    body(float{});
  } else {
    body(at::BFloat16{});
  }
}

at::Tensor rms_norm_fused(const at::Tensor& x, const at::Tensor& gain, double eps) {
  const at::Tensor in = x.contiguous();
  at::Tensor out = at::empty_like(in);
  const std::int64_t width = in.size(-1), rows = in.numel() / std::max<std::int64_t>(1, width);
  for_type(in.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* source = in.const_data_ptr<T>();
    const T* gains = gain.const_data_ptr<T>();
    T* target = out.data_ptr<T>();
    at::parallel_for(0, rows, rows_per_task(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        rms_norm(source + row * width, gains, target + row * width, width, static_cast<float>(eps));
      }
    });
  });
  return out;
}

at::Tensor silu_multiply_fused(const at::Tensor& gate, const at::Tensor& up) {
  const std::int64_t rows = gate.size(0), width = gate.size(1);
  at::Tensor out = at::empty({rows, width}, gate.options());
  for_type(gate.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* gates = gate.const_data_ptr<T>();
    const T* ups = up.const_data_ptr<T>();
    T* target = out.data_ptr<T>();
    at::parallel_for(0, rows, rows_per_task(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        silu_multiply(gates + row * gate.stride(0), ups + row * up.stride(0), target + row * width, width);
      }
    });
  });
  return out;
}

void rotate_in_place(at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, std::int64_t head_dim) {
  const std::int64_t rows = x.size(0), heads = x.size(1) / head_dim, half = head_dim / 2;
  for_type(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    T* data = x.data_ptr<T>();
    const float* cosines = cos.const_data_ptr<float>();
    const float* sines = sin.const_data_ptr<float>();
    at::parallel_for(0, rows, rows_per_task(x.size(1)), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        for (std::int64_t head = 0; head < heads; ++head) {
          rotate(data + row * x.stride(0) + head * head_dim, cosines + row * half, sines + row * half, half);
        }
      }
    });
  });
}

}  // namespace proviso::model

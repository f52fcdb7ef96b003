#include "runtime/model/kernels.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "runtime/model/for_each_cpu.hpp"

// clang lints this file, without an omp.h.
#if AT_PARALLEL_OPENMP && !defined(_OPENMP) && !defined(__clang__)
#error "compile with OpenMP's flag: without it at::parallel_for is a plain loop"
#endif
#define PROVISO_INLINE inline __attribute__((always_inline))

namespace proviso::model {

namespace {

/// 16 floats: one register of AVX-512, two of AVX2, four of SSE.
using Lanes = float __attribute__((vector_size(64), aligned(4), may_alias));
constexpr std::int64_t kLanes = 16;

/// Rows that one thread takes at least: below, starting it costs more than it saves.
std::int64_t rows_per_task(std::int64_t row_elements) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, row_elements));
}

PROVISO_INLINE float bits_to_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

PROVISO_INLINE std::uint32_t float_to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// bfloat16 by its bits, branch-free, so that loops over it vectorise.
using BFloat16Bits = std::uint16_t;

PROVISO_INLINE float widen(float value) { return value; }
PROVISO_INLINE float widen(BFloat16Bits value) { return bits_to_float(static_cast<std::uint32_t>(value) << 16); }

template <class T>
PROVISO_INLINE T narrow(float value);
template <>
PROVISO_INLINE float narrow<float>(float value) {
  return value;
}
template <>
PROVISO_INLINE BFloat16Bits narrow<BFloat16Bits>(float value) {
  const std::uint32_t bits = float_to_bits(value);
  const std::uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<BFloat16Bits>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : nearest);
}

/// e^x to 2 ulp where |x| < 87, clamped beyond: 2^n · p(x − n ln 2), written so that it vectorises.
PROVISO_INLINE float exp_fast(float x) {
  x = std::min(std::max(x, -87.0f), 87.0f);
  constexpr float kRound =
      12582912.0f + 127.0f;  // adding 1.5 · 2^23 rounds to an integer, in the low bits; 127 biases it
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
  return p * bits_to_float(float_to_bits(shifted) << 23);
}

template <class T>
PROVISO_INLINE void silu_multiply_row(const T* __restrict gate, const T* __restrict up, T* __restrict out,
                                      std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = widen(gate[i]);
    out[i] = narrow<T>(g / (1.0f + exp_fast(-g)) * widen(up[i]));
  }
}

template <class T>
PROVISO_INLINE void silu_multiply_gradient_row(const T* __restrict of_out, const T* __restrict gate,
                                               const T* __restrict up, T* __restrict of_gate, T* __restrict of_up,
                                               std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float d = widen(of_out[i]), g = widen(gate[i]), share = 1.0f / (1.0f + exp_fast(-g));
    of_up[i] = narrow<T>(d * g * share);
    of_gate[i] = narrow<T>(d * widen(up[i]) * share * (1.0f + g * (1.0f - share)));
  }
}

/// Σ a b, by lanes.
template <class A, class B>
PROVISO_INLINE float dot(std::int64_t n, const A& a, const B& b) {
  float sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) sums[j] += a(i + j) * b(i + j);
  }
  float total = 0;
  for (; i < n; ++i) total += a(i) * b(i);
  for (const float sum : sums) total += sum;
  return total;
}

template <class T>
PROVISO_INLINE void rms_norm_row(const T* __restrict x, const T* __restrict gain, T* __restrict out, std::int64_t n,
                                 float eps) {
  const auto value = [&](std::int64_t i) __attribute__((always_inline)) { return widen(x[i]); };
  const float scale = 1.0f / std::sqrt(dot(n, value, value) / static_cast<float>(n) + eps);
  // Rounded before the gain, as the families' own code does.
  for (std::int64_t i = 0; i < n; ++i) out[i] = narrow<T>(widen(narrow<T>(widen(x[i]) * scale)) * widen(gain[i]));
}

/// Of x: s (d − x s² mean(d x)), where d is the gradient at the normed x and s its scale.
template <class T>
PROVISO_INLINE void rms_norm_gradient_row(const T* __restrict of_out, const T* __restrict x, const T* __restrict gain,
                                          T* __restrict of_x, std::int64_t n, float eps) {
  const auto value = [&](std::int64_t i) __attribute__((always_inline)) { return widen(x[i]); };
  const auto slope = [&](std::int64_t i) __attribute__((always_inline)) { return widen(of_out[i]) * widen(gain[i]); };
  const float size = static_cast<float>(n), scale = 1.0f / std::sqrt(dot(n, value, value) / size + eps);
  const float along = scale * scale * dot(n, slope, value) / size;
  for (std::int64_t i = 0; i < n; ++i) of_x[i] = narrow<T>(scale * (slope(i) - value(i) * along));
}

template <class T>
PROVISO_INLINE void rotate_head(T* __restrict x, const float* __restrict cos, const float* __restrict sin,
                                std::int64_t half) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float first = widen(x[i]), second = widen(x[i + half]);
    x[i] = narrow<T>(first * cos[i] - second * sin[i]);
    x[i + half] = narrow<T>(second * cos[i] + first * sin[i]);
  }
}

PROVISO_FOR_EACH_CPU void silu_multiply(const float* g, const float* u, float* o, std::int64_t n) {
  silu_multiply_row(g, u, o, n);
}
PROVISO_FOR_EACH_CPU void silu_multiply(const BFloat16Bits* g, const BFloat16Bits* u, BFloat16Bits* o, std::int64_t n) {
  silu_multiply_row(g, u, o, n);
}
PROVISO_FOR_EACH_CPU void rms_norm(const float* x, const float* g, float* o, std::int64_t n, float eps) {
  rms_norm_row(x, g, o, n, eps);
}
PROVISO_FOR_EACH_CPU void rms_norm(const BFloat16Bits* x, const BFloat16Bits* g, BFloat16Bits* o, std::int64_t n,
                                   float eps) {
  rms_norm_row(x, g, o, n, eps);
}
PROVISO_FOR_EACH_CPU void silu_multiply_gradient(const float* d, const float* g, const float* u, float* of_g,
                                                 float* of_u, std::int64_t n) {
  silu_multiply_gradient_row(d, g, u, of_g, of_u, n);
}
PROVISO_FOR_EACH_CPU void silu_multiply_gradient(const BFloat16Bits* d, const BFloat16Bits* g, const BFloat16Bits* u,
                                                 BFloat16Bits* of_g, BFloat16Bits* of_u, std::int64_t n) {
  silu_multiply_gradient_row(d, g, u, of_g, of_u, n);
}
PROVISO_FOR_EACH_CPU void rms_norm_gradient(const float* d, const float* x, const float* g, float* o, std::int64_t n,
                                            float eps) {
  rms_norm_gradient_row(d, x, g, o, n, eps);
}
PROVISO_FOR_EACH_CPU void rms_norm_gradient(const BFloat16Bits* d, const BFloat16Bits* x, const BFloat16Bits* g,
                                            BFloat16Bits* o, std::int64_t n, float eps) {
  rms_norm_gradient_row(d, x, g, o, n, eps);
}
PROVISO_FOR_EACH_CPU void rotate(float* x, const float* c, const float* s, std::int64_t half) {
  rotate_head(x, c, s, half);
}
PROVISO_FOR_EACH_CPU void rotate(BFloat16Bits* x, const float* c, const float* s, std::int64_t half) {
  rotate_head(x, c, s, half);
}

/// By halves, each of which stays in a register.
PROVISO_INLINE float sum(const Lanes& lanes) {
  using Eight = float __attribute__((vector_size(32)));
  using Four = float __attribute__((vector_size(16)));
  Eight halves[2];
  std::memcpy(halves, &lanes, sizeof halves);
  const Eight eight = halves[0] + halves[1];
  Four quarters[2];
  std::memcpy(quarters, &eight, sizeof quarters);
  const Four four = quarters[0] + quarters[1];
  return (four[0] + four[1]) + (four[2] + four[3]);
}

/// Two rows of W against kRows of x, every sum in a register.
template <int kRows>
PROVISO_INLINE void multiply_tile(const float* w, std::int64_t w_rows, const float* x, std::int64_t in, float* out,
                                  std::int64_t out_stride) {
  const float* second = w + (w_rows > 1 ? in : 0);
  Lanes sums[kRows][2] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= in; i += kLanes) {
    __builtin_prefetch(w + 2 * in + i);
    __builtin_prefetch(second + 2 * in + i);
    const Lanes w0 = *reinterpret_cast<const Lanes*>(w + i), w1 = *reinterpret_cast<const Lanes*>(second + i);
    for (int row = 0; row < kRows; ++row) {
      const Lanes values = *reinterpret_cast<const Lanes*>(x + row * in + i);
      sums[row][0] += w0 * values;
      sums[row][1] += w1 * values;
    }
  }
  for (int row = 0; row < kRows; ++row) {
    float first_total = sum(sums[row][0]), second_total = sum(sums[row][1]);
    for (std::int64_t rest = i; rest < in; ++rest) {
      first_total += w[rest] * x[row * in + rest];
      second_total += second[rest] * x[row * in + rest];
    }
    out[row * out_stride] = first_total;
    if (w_rows > 1) out[row * out_stride + 1] = second_total;
  }
}

/// out[r][o] = x[r] · w[o] for `outs` rows of W, a block of which stays near while the rows of x pass by.
PROVISO_FOR_EACH_CPU void multiply_block(const float* w, std::int64_t outs, const float* x, std::int64_t rows,
                                         std::int64_t in, float* out, std::int64_t out_stride) {
  constexpr std::int64_t kBlock = 16;
  for (std::int64_t block = 0; block < outs; block += kBlock) {
    const std::int64_t end = std::min(outs, block + kBlock);
    std::int64_t row = 0;
    const auto tiles = [&]<int kRows>() __attribute__((always_inline)) {
      for (; row + kRows <= rows; row += kRows) {
        for (std::int64_t o = block; o < end; o += 2) {
          multiply_tile<kRows>(w + o * in, end - o, x + row * in, in, out + row * out_stride + o, out_stride);
        }
      }
    };
    tiles.template operator()<8>();
    tiles.template operator()<4>();
    tiles.template operator()<2>();
    tiles.template operator()<1>();
  }
}

}  // namespace

bool kernels_run_on(const at::Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

template <class Body>
void for_type(at::ScalarType type, Body&& body) {
  if (type == at::kFloat) {
    body(float{});
  } else {
    body(BFloat16Bits{});
  }
}

/// `body` for each row, by threads.
template <class Body>
void for_each_row(std::int64_t rows, std::int64_t width, const Body& body) {
  at::parallel_for(0, rows, rows_per_task(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row);
  });
}

at::Tensor rms_norm_kernel(const at::Tensor& x, const at::Tensor& gain, double eps) {
  at::Tensor out = at::empty_like(x);
  const std::int64_t width = x.size(-1), rows = x.numel() / std::max<std::int64_t>(1, width);
  for_type(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* source = static_cast<const T*>(x.const_data_ptr());
    const T* gains = static_cast<const T*>(gain.const_data_ptr());
    T* target = static_cast<T*>(out.data_ptr());
    for_each_row(rows, width, [&](std::int64_t row) {
      rms_norm(source + row * width, gains, target + row * width, width, static_cast<float>(eps));
    });
  });
  return out;
}

at::Tensor rms_norm_gradient_kernel(const at::Tensor& of_out, const at::Tensor& x, const at::Tensor& gain, double eps) {
  at::Tensor of_x = at::empty_like(x);
  const std::int64_t width = x.size(-1), rows = x.numel() / std::max<std::int64_t>(1, width);
  for_type(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* slopes = static_cast<const T*>(of_out.const_data_ptr());
    const T* source = static_cast<const T*>(x.const_data_ptr());
    const T* gains = static_cast<const T*>(gain.const_data_ptr());
    T* target = static_cast<T*>(of_x.data_ptr());
    for_each_row(rows, width, [&](std::int64_t row) {
      rms_norm_gradient(slopes + row * width, source + row * width, gains, target + row * width, width,
                        static_cast<float>(eps));
    });
  });
  return of_x;
}

at::Tensor silu_multiply_kernel(const at::Tensor& gate, const at::Tensor& up) {
  const std::int64_t rows = gate.size(0), width = gate.size(1);
  at::Tensor out = at::empty({rows, width}, gate.options());
  for_type(gate.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* gates = static_cast<const T*>(gate.const_data_ptr());
    const T* ups = static_cast<const T*>(up.const_data_ptr());
    T* target = static_cast<T*>(out.data_ptr());
    for_each_row(rows, width, [&](std::int64_t row) {
      silu_multiply(gates + row * gate.stride(0), ups + row * up.stride(0), target + row * width, width);
    });
  });
  return out;
}

std::pair<at::Tensor, at::Tensor> silu_multiply_gradient_kernel(const at::Tensor& of_out, const at::Tensor& gate,
                                                                const at::Tensor& up) {
  const std::int64_t rows = gate.size(0), width = gate.size(1);
  at::Tensor of_gate = at::empty({rows, width}, gate.options()), of_up = at::empty_like(of_gate);
  for_type(gate.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* slopes = static_cast<const T*>(of_out.const_data_ptr());
    const T* gates = static_cast<const T*>(gate.const_data_ptr());
    const T* ups = static_cast<const T*>(up.const_data_ptr());
    T* gate_target = static_cast<T*>(of_gate.data_ptr());
    T* up_target = static_cast<T*>(of_up.data_ptr());
    for_each_row(rows, width, [&](std::int64_t row) {
      silu_multiply_gradient(slopes + row * width, gates + row * gate.stride(0), ups + row * up.stride(0),
                             gate_target + row * width, up_target + row * width, width);
    });
  });
  return {of_gate, of_up};
}

void rotate_in_place(at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, std::int64_t head_dim) {
  const std::int64_t rows = x.size(0), heads = x.size(1) / head_dim, half = cos.size(1);
  for_type(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    T* data = static_cast<T*>(x.data_ptr());
    const float* cosines = cos.const_data_ptr<float>();
    const float* sines = sin.const_data_ptr<float>();
    for_each_row(rows, x.size(1), [&](std::int64_t row) {
      for (std::int64_t head = 0; head < heads; ++head) {
        rotate(data + row * x.stride(0) + head * head_dim, cosines + row * half, sines + row * half, half);
      }
    });
  });
}

bool few_rows_run_on(const at::Tensor& x, const at::Tensor& weight) {
  constexpr std::int64_t kMostRows = 32;
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && x.size(0) <= kMostRows && weight.is_contiguous();
}

at::Tensor few_rows_linear(const at::Tensor& x, const at::Tensor& weight) {
  const at::Tensor in = x.contiguous();
  const std::int64_t rows = in.size(0), width = in.size(1), outs = weight.size(0);
  at::Tensor out = at::empty({rows, outs}, in.options());
  const float* weights = weight.const_data_ptr<float>();
  const float* values = in.const_data_ptr<float>();
  float* target = out.data_ptr<float>();
  // Threads take what is left in turns: one that the system holds up does not hold up the others.
  const std::int64_t step = std::max<std::int64_t>(16, 65536 / width);
  std::atomic<std::int64_t> next = 0;
  const auto take_turns = [&](std::int64_t, std::int64_t) {
    for (std::int64_t begin = next.fetch_add(step); begin < outs; begin = next.fetch_add(step)) {
      multiply_block(weights + begin * width, std::min(step, outs - begin), values, rows, width, target + begin, outs);
    }
  };
  at::parallel_for(0, outs <= step ? 1 : at::get_num_threads(), 1, take_turns);
  return out;
}

}  // namespace proviso::model

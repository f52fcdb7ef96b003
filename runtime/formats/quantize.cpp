// The way back from `dequantize`. The block formats' scales and roundings are those of ggml's reference, in float32 and
// in its order, so that a file comes to the bytes that ggml's own quantiser writes.

#include "runtime/formats/quantize.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace proviso::model {

namespace {

constexpr int kBlock = 32;

/// To nearest even, overflow to infinity, subnormals kept, NaN quiet.
std::uint16_t to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return sign | 0x7E00u;
  if (magnitude >= 0x477FF000u) return sign | 0x7C00u;  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {                        // below 2^-14: so many units of 2^-24
    const float units = std::bit_cast<float>(magnitude) * 0x1p24f;
    return sign | static_cast<std::uint16_t>(std::nearbyint(units));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1;
  return sign | static_cast<std::uint16_t>((magnitude - (112u << 23) + 0xFFFu + odd) >> 13);
}

std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>((bits >> 16) | 64);
  return static_cast<std::uint16_t>((bits + (0x7FFFu + ((bits >> 16) & 1))) >> 16);
}

/// 0 where there is none, as of a scale so small that its inverse is no number.
float inverse(float scale) {
  const float inverted = 1.0f / scale;
  return std::isfinite(inverted) ? inverted : 0.0f;
}

struct PackedQ4_0 {
  std::uint16_t d;
  std::uint8_t low[kBlock / 2];

  explicit PackedQ4_0(const float* x) {
    // The value of largest size, with its sign, becomes the quant −8.
    float extreme = 0;
    for (int i = 0; i < kBlock; ++i) {
      if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
    }
    const float scale = extreme / -8, inverted = inverse(scale);
    d = to_half(scale);
    const auto quant = [&](float value) { return std::min(15, static_cast<int>(value * inverted + 8.5f)); };
    for (int i = 0; i < kBlock / 2; ++i)
      low[i] = static_cast<std::uint8_t>(quant(x[i]) | quant(x[i + kBlock / 2]) << 4);
  }
};

struct PackedQ4_1 {
  std::uint16_t d, m;
  std::uint8_t low[kBlock / 2];

  explicit PackedQ4_1(const float* x) {
    const auto [least, most] = std::minmax_element(x, x + kBlock);
    const float minimum = *least, scale = (*most - *least) / 15, inverted = inverse(scale);
    d = to_half(scale);
    m = to_half(minimum);
    // As ggml's reference rounds; nothing here is negative.
    // NOLINTNEXTLINE(bugprone-incorrect-roundings)
    const auto quant = [&](float value) { return std::min(15, static_cast<int>((value - minimum) * inverted + 0.5f)); };
    for (int i = 0; i < kBlock / 2; ++i)
      low[i] = static_cast<std::uint8_t>(quant(x[i]) | quant(x[i + kBlock / 2]) << 4);
  }
};

struct PackedQ8_0 {
  std::uint16_t d;
  std::int8_t quants[kBlock];

  explicit PackedQ8_0(const float* x) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float scale = largest / 127, inverted = inverse(scale);
    d = to_half(scale);
    for (int i = 0; i < kBlock; ++i) quants[i] = static_cast<std::int8_t>(std::round(x[i] * inverted));
  }
};

template <class Packed>
void pack_blocks(std::span<const float> values, std::vector<std::byte>& bytes) {
  static_assert(std::is_trivially_copyable_v<Packed> && alignof(Packed) <= 2);
  std::byte* to = bytes.data();
  for (std::size_t first = 0; first < values.size(); first += kBlock, to += sizeof(Packed)) {
    const Packed block(values.data() + first);
    std::memcpy(to, &block, sizeof block);
  }
}

template <class Convert>
void pack_halves(std::span<const float> values, std::vector<std::byte>& bytes, Convert convert) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t word = convert(values[i]);
    std::memcpy(bytes.data() + 2 * i, &word, 2);
  }
}

}  // namespace

bool can_quantize(ElementType type) {
  switch (type) {
    case ElementType::f32:
    case ElementType::f16:
    case ElementType::bf16:
    case ElementType::q4_0:
    case ElementType::q4_1:
    case ElementType::q8_0:
      return true;
    default:
      return false;
  }
}

std::vector<std::byte> quantize(std::span<const float> values, ElementType type) {
  std::vector<std::byte> bytes(stored_bytes(type, values.size()));
  switch (type) {
    case ElementType::f32:
      if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
      break;
    case ElementType::f16:
      pack_halves(values, bytes, to_half);
      break;
    case ElementType::bf16:
      pack_halves(values, bytes, to_bfloat16);
      break;
    case ElementType::q4_0:
      pack_blocks<PackedQ4_0>(values, bytes);
      break;
    case ElementType::q4_1:
      pack_blocks<PackedQ4_1>(values, bytes);
      break;
    case ElementType::q8_0:
      pack_blocks<PackedQ8_0>(values, bytes);
      break;
    default:
      throw std::invalid_argument("quantize: " + std::string(element_type_name(type)) + " is not written");
  }
  return bytes;
}

}  // namespace proviso::model

// The block formats' values as ggml defines them (ggml-quants.c): products and sums in float32, in its order.
// Every loop has a fixed trip count and no branch, so that the compiler vectorises it.

#include <array>
#include <bit>
#include <cstring>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

namespace {

using Half = std::uint16_t;

/// Exact, subnormals and NaN included. Both cases are computed and one is chosen: no branch.
inline float to_float(Half half) {
  const std::uint32_t word = static_cast<std::uint32_t>(half) << 16;
  const std::uint32_t sign = word & 0x80000000u;
  const std::uint32_t magnitude = word + word;
  const float normal = std::bit_cast<float>((magnitude >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  const float subnormal = std::bit_cast<float>((magnitude >> 17) | (126u << 23)) - 0.5f;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(magnitude < (1u << 27) ? subnormal : normal);
  return std::bit_cast<float>(sign | bits);
}

struct BlockQ4_0 {
  static constexpr int kElements = 32;
  Half d;
  std::uint8_t low[16];

  void expand(float* out) const {
    const float scale = to_float(d);
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>((low[i] & 15) - 8) * scale;
      out[i + 16] = static_cast<float>((low[i] >> 4) - 8) * scale;
    }
  }
};

struct BlockQ4_1 {
  static constexpr int kElements = 32;
  Half d, m;
  std::uint8_t low[16];

  void expand(float* out) const {
    const float scale = to_float(d), minimum = to_float(m);
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>(low[i] & 15) * scale + minimum;
      out[i + 16] = static_cast<float>(low[i] >> 4) * scale + minimum;
    }
  }
};

/// The fifth bits of a Q5_0 or Q5_1 block, one an element: 16 where set.
inline std::array<std::uint8_t, 32> fifth_bits(const std::uint8_t (&high)[4]) {
  std::array<std::uint8_t, 32> bits;
  for (int i = 0; i < 32; ++i) bits[i] = static_cast<std::uint8_t>(((high[i / 8] >> (i % 8)) & 1) << 4);
  return bits;
}

struct BlockQ5_0 {
  static constexpr int kElements = 32;
  Half d;
  std::uint8_t high[4];
  std::uint8_t low[16];

  void expand(float* out) const {
    const float scale = to_float(d);
    const auto fifth = fifth_bits(high);
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>(((low[i] & 15) | fifth[i]) - 16) * scale;
      out[i + 16] = static_cast<float>(((low[i] >> 4) | fifth[i + 16]) - 16) * scale;
    }
  }
};

struct BlockQ5_1 {
  static constexpr int kElements = 32;
  Half d, m;
  std::uint8_t high[4];
  std::uint8_t low[16];

  void expand(float* out) const {
    const float scale = to_float(d), minimum = to_float(m);
    const auto fifth = fifth_bits(high);
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>((low[i] & 15) | fifth[i]) * scale + minimum;
      out[i + 16] = static_cast<float>((low[i] >> 4) | fifth[i + 16]) * scale + minimum;
    }
  }
};

struct BlockQ8_0 {
  static constexpr int kElements = 32;
  Half d;
  std::int8_t quants[32];

  void expand(float* out) const {
    const float scale = to_float(d);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(quants[i]) * scale;
  }
};

/// The eight 6-bit scales and minima of a Q4_K or Q5_K block, packed in 12 bytes: the first four of each
/// have a byte, whose upper two bits complete a nibble of the last four.
struct PackedScales {
  std::uint8_t bytes[12];

  int scale(int i) const { return i < 4 ? bytes[i] & 63 : (bytes[i + 4] & 15) | ((bytes[i - 4] >> 6) << 4); }
  int minimum(int i) const { return i < 4 ? bytes[i + 4] & 63 : (bytes[i + 4] >> 4) | ((bytes[i] >> 6) << 4); }
};

struct BlockQ4_K {
  static constexpr int kElements = 256;
  Half d, dmin;
  PackedScales scales;
  std::uint8_t low[128];

  void expand(float* out) const {
    for (int group = 0; group < 8; ++group) {
      const float scale = to_float(d) * static_cast<float>(scales.scale(group));
      const float minimum = to_float(dmin) * static_cast<float>(scales.minimum(group));
      const std::uint8_t* nibbles = low + 32 * (group / 2);
      const int shift = 4 * (group % 2);
      for (int i = 0; i < 32; ++i) {
        out[32 * group + i] = scale * static_cast<float>((nibbles[i] >> shift) & 15) - minimum;
      }
    }
  }
};

struct BlockQ5_K {
  static constexpr int kElements = 256;
  Half d, dmin;
  PackedScales scales;
  std::uint8_t high[32];
  std::uint8_t low[128];

  void expand(float* out) const {
    for (int group = 0; group < 8; ++group) {
      const float scale = to_float(d) * static_cast<float>(scales.scale(group));
      const float minimum = to_float(dmin) * static_cast<float>(scales.minimum(group));
      const std::uint8_t* nibbles = low + 32 * (group / 2);
      const int shift = 4 * (group % 2);
      for (int i = 0; i < 32; ++i) {
        const int quant = ((nibbles[i] >> shift) & 15) | (((high[i] >> group) & 1) << 4);
        out[32 * group + i] = scale * static_cast<float>(quant) - minimum;
      }
    }
  }
};

struct BlockQ6_K {
  static constexpr int kElements = 256;
  std::uint8_t low[128];
  std::uint8_t high[64];
  std::int8_t scales[16];
  Half d;

  void expand(float* out) const {
    for (int group = 0; group < 16; ++group) {
      const float scale = to_float(d) * static_cast<float>(scales[group]);
      // Each half of the block holds four runs of 32: two in the lower nibbles, two in the upper ones.
      const int half = group / 8, run = group % 8 / 2, offset = 16 * (group % 2);
      const std::uint8_t* nibbles = low + 64 * half + 32 * (run % 2) + offset;
      const std::uint8_t* pairs = high + 32 * half + offset;
      const int shift = 4 * (run / 2), pair_shift = 2 * run;
      for (int i = 0; i < 16; ++i) {
        const int quant = ((nibbles[i] >> shift) & 15) | (((pairs[i] >> pair_shift) & 3) << 4);
        out[16 * group + i] = scale * static_cast<float>(quant - 32);
      }
    }
  }
};

template <class Block>
void expand_blocks(std::span<const std::byte> bytes, std::span<float> out) {
  static_assert(std::is_trivially_copyable_v<Block> && alignof(Block) <= 2);
  float* to = out.data();
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(Block), to += Block::kElements) {
    Block block;
    std::memcpy(&block, bytes.data() + at, sizeof(Block));
    block.expand(to);
  }
}

template <class Convert>
void expand_halves(std::span<const std::byte> bytes, std::span<float> out, Convert convert) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t word;
    std::memcpy(&word, bytes.data() + 2 * i, 2);
    out[i] = convert(word);
  }
}

}  // namespace

void dequantize(const StoredTensor& tensor, std::span<float> out) {
  const std::span<const std::byte> bytes = tensor.bytes;
  if (static_cast<std::int64_t>(out.size()) != tensor.elements() ||
      bytes.size() != stored_bytes(tensor.type, out.size())) {
    throw std::invalid_argument("dequantize: the sizes of '" + tensor.name + "' do not agree");
  }
  switch (tensor.type) {
    case ElementType::f32:
      if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case ElementType::f16:
      return expand_halves(bytes, out, to_float);
    case ElementType::bf16:
      return expand_halves(
          bytes, out, [](std::uint16_t word) { return std::bit_cast<float>(static_cast<std::uint32_t>(word) << 16); });
    case ElementType::q4_0:
      return expand_blocks<BlockQ4_0>(bytes, out);
    case ElementType::q4_1:
      return expand_blocks<BlockQ4_1>(bytes, out);
    case ElementType::q5_0:
      return expand_blocks<BlockQ5_0>(bytes, out);
    case ElementType::q5_1:
      return expand_blocks<BlockQ5_1>(bytes, out);
    case ElementType::q8_0:
      return expand_blocks<BlockQ8_0>(bytes, out);
    case ElementType::q4_k:
      return expand_blocks<BlockQ4_K>(bytes, out);
    case ElementType::q5_k:
      return expand_blocks<BlockQ5_K>(bytes, out);
    case ElementType::q6_k:
      return expand_blocks<BlockQ6_K>(bytes, out);
  }
}

}  // namespace proviso::model

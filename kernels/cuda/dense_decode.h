// From stored weights (dense_weights.h) to bf16 on the device. Every code of every format is
// exactly a bf16, so nothing is rounded here; scales are applied by the caller, or by LoadWeights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/dense_weights.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/octet.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

// Eight weights as four pairs of bf16, the earlier input in the low half.
struct OctetBits {
  uint32_t pair[4];
};

// Four int8, stored in the order 0, 2, 1, 3: bytes 0 and 2 of the word are inputs 0 and 1. The low
// seven bits b, put where the mantissa is, make 128 + b; the sign bit, put there too, makes 128 or
// 256; the difference of both is the number. (bf16 steps by 1 from 128 to 256.)
LORAD_DEVICE void DecodeInt8(uint32_t word, uint32_t& first, uint32_t& second) {
  constexpr uint32_t k128 = 0x43004300, kMinusOne = 0xbf80bf80;
  const uint32_t odd = word >> 8;
  first = FmaBf16((word & 0x00800080) | k128, kMinusOne, (word & 0x007f007f) | k128);
  second = FmaBf16((odd & 0x00800080) | k128, kMinusOne, (odd & 0x007f007f) | k128);
}

// Four e4m3, stored in the order 0, 2, 1, 3. With its exponent and mantissa moved to where bf16 has
// them a number is 2^-120 of what it was, subnormals too. The two codes for NaN, which no packed
// matrix holds, become +-480.
LORAD_DEVICE void DecodeFp8(uint32_t word, uint32_t& first, uint32_t& second) {
  constexpr uint32_t k2To120 = 0x7b807b80, kMinusZero = 0x80008000;
  const uint32_t even = word << 8;
  first = FmaBf16((even & 0x80008000) | ((even >> 4) & 0x07f007f0), k2To120, kMinusZero);
  second = FmaBf16((word & 0x80008000) | ((word >> 4) & 0x07f007f0), k2To120, kMinusZero);
}

// Eight int4 as q + 8; halfbytes i and i + 4 are inputs 2i and 2i + 1. q + 8 in the mantissa makes
// 136 + q.
LORAD_DEVICE OctetBits DecodeInt4(uint32_t word) {
  constexpr uint32_t k128 = 0x43004300, kOne = 0x3f803f80, kMinus136 = 0xc308c308;
  OctetBits bits;
  for (int i = 0; i < 4; ++i) {
    bits.pair[i] = FmaBf16(((word >> (4 * i)) & 0x000f000f) | k128, kOne, kMinus136);
  }
  return bits;
}

// Block `block` (below LineInputs / 32, known when compiled) of the quarter of a line.
template <WeightFormat kFormat>
LORAD_DEVICE OctetBits DecodeQuarter(const Vec4& quarter, int block) {
  if constexpr (kFormat == WeightFormat::kBf16) {
    return {{quarter.x, quarter.y, quarter.z, quarter.w}};
  } else if constexpr (kFormat == WeightFormat::kInt4) {
    return DecodeInt4(block == 0   ? quarter.x
                      : block == 1 ? quarter.y
                      : block == 2 ? quarter.z
                                   : quarter.w);
  } else {
    const uint32_t low = block == 0 ? quarter.x : quarter.z;
    const uint32_t high = block == 0 ? quarter.y : quarter.w;
    OctetBits bits;
    if constexpr (kFormat == WeightFormat::kInt8) {
      DecodeInt8(low, bits.pair[0], bits.pair[1]);
      DecodeInt8(high, bits.pair[2], bits.pair[3]);
    } else {
      DecodeFp8(low, bits.pair[0], bits.pair[1]);
      DecodeFp8(high, bits.pair[2], bits.pair[3]);
    }
    return bits;
  }
}

// Weights column .. column + 7 of a row, scaled; zero beyond w.cols.
// REQUIRES: column is a multiple of 8 below w.stride.
LORAD_DEVICE Octet LoadWeights(const WeightsView& w, int row, int column) {
  const auto* from = static_cast<const std::byte*>(w.data) +
                     size_t(row) * size_t(WeightRowBytes(w.format, w.stride)) +
                     size_t(OctetOffset(w.format, column));
  if (w.format == WeightFormat::kBf16) return OctetOfBf16(Load16(from));
  const auto* words = reinterpret_cast<const uint32_t*>(from);
  OctetBits bits;
  float scale = 0;
  if (w.format == WeightFormat::kInt4) {
    bits = DecodeInt4(words[0]);
    scale = w.scales[size_t(row) * size_t(w.stride / kScaleInputs) + size_t(column / kScaleInputs)];
  } else {
    if (w.format == WeightFormat::kInt8) {
      DecodeInt8(words[0], bits.pair[0], bits.pair[1]);
      DecodeInt8(words[1], bits.pair[2], bits.pair[3]);
    } else {
      DecodeFp8(words[0], bits.pair[0], bits.pair[1]);
      DecodeFp8(words[1], bits.pair[2], bits.pair[3]);
    }
    scale = w.scales[row];
  }
  Octet weights = OctetOfBf16({bits.pair[0], bits.pair[1], bits.pair[2], bits.pair[3]});
  for (float& v : weights.v) v *= scale;
  return weights;
}

}  // namespace lorad::kernels::cuda

// e4m3 as the KV cache holds it: 1 sign, 4 exponent (bias 7), 3 mantissa bits, no infinities,
// largest 448 (OCP 8-bit Floating Point Specification, section 5). In plain arithmetic, so that it
// is the same on every device and on the host.
#pragma once

#include <cstdint>

#include "kernels/cuda/gpu.h"

namespace lorad::kernels::cuda {

inline constexpr float kFp8Highest = 448.0f;

// To the nearest, ties to even; beyond the largest: the largest. NaN becomes the largest.
LORAD_DEVICE uint32_t ToFp8(float value) {
  const uint32_t bits = FloatToBits(value);
  const uint32_t sign = bits >> 24 & 0x80;
  const float size = BitsToFloat(bits & 0x7fffffff);
  if (!(size < kFp8Highest)) return sign | 0x7e;
  if (size < 0.015625f) {
    // Below 2^-6 the steps are 2^-9. Adding 2^14 leaves as many bits and rounds to even.
    return sign | (FloatToBits(size + 16384.0f) - FloatToBits(16384.0f));
  }
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t rounded = magnitude + 0x7ffff + (magnitude >> 20 & 1);
  return sign | ((rounded >> 20) - (120 << 3));
}

// Two of them, the low byte first, as two bf16 in one word; exact. NaN (0x7f) is not expected.
LORAD_DEVICE uint32_t Fp8PairToBf16(uint32_t pair) {
  // The fields in their places in bf16, exponents 120 too low: right for subnormals too.
  const uint32_t high = (pair & 0xff) << 8 | (pair & 0xff00) << 16;
  const uint32_t low = (high & 0x80008000) | (high >> 4 & 0x07f007f0);
  return FmaBf16(low, 0x7b807b80 /* 2^120 */, 0x80008000 /* -0 */);
}

}  // namespace lorad::kernels::cuda

// Octet: eight neighbouring columns of a tensor's row as floats, whatever the tensor's format, so
// that a row kernel is written once. A row starts 128-byte aligned (views.h), so an octet whose
// column is a multiple of 8 is one 16-byte access in bf16 and two in fp32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

inline constexpr int kOctet = 8;

LORAD_HOST_DEVICE constexpr int Octets(int columns) { return (columns + kOctet - 1) / kOctet; }

struct Octet {
  float v[kOctet];
};

LORAD_DEVICE Octet OctetOfBf16(Vec4 bits) {
  return {{LowBf16(bits.x), HighBf16(bits.x), LowBf16(bits.y), HighBf16(bits.y), LowBf16(bits.z),
           HighBf16(bits.z), LowBf16(bits.w), HighBf16(bits.w)}};
}

LORAD_DEVICE Octet OctetOfFloats(Vec4 low, Vec4 high) {
  return {{BitsToFloat(low.x), BitsToFloat(low.y), BitsToFloat(low.z), BitsToFloat(low.w),
           BitsToFloat(high.x), BitsToFloat(high.y), BitsToFloat(high.z), BitsToFloat(high.w)}};
}

LORAD_DEVICE bool IsAligned16(const void* at) {
  return (reinterpret_cast<uintptr_t>(at) & 15) == 0;
}

// Columns column .. column + 7; those at or beyond `end` are not read and are zero. Any column:
// octets that are not aligned are read one by one.
LORAD_DEVICE Octet LoadOctet(const TensorView& x, int row, int column, int end) {
  const size_t at = size_t(row) * size_t(x.stride) + size_t(column);
  const bool whole = column + kOctet <= end;
  Octet octet;
  if (x.full) {
    const float* from = static_cast<const float*>(x.data) + at;
    if (whole && IsAligned16(from)) return OctetOfFloats(Load16(from), Load16(from + 4));
    for (int i = 0; i < kOctet; ++i) octet.v[i] = column + i < end ? from[i] : 0.0f;
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(x.data) + at;
    if (whole && IsAligned16(from)) return OctetOfBf16(Load16(from));
    for (int i = 0; i < kOctet; ++i) octet.v[i] = column + i < end ? FromBf16(from[i]) : 0.0f;
  }
  return octet;
}

// As above within the row's stride: the padding of a row is zero and may be read.
LORAD_DEVICE Octet LoadOctet(const TensorView& x, int row, int column) {
  return LoadOctet(x, row, column, x.stride);
}

// Floats [0, count) of an array that need not be aligned, zeros beyond.
LORAD_DEVICE Octet LoadOctet(const float* from, int count) {
  if (count >= kOctet && IsAligned16(from)) return OctetOfFloats(Load16(from), Load16(from + 4));
  Octet octet;
  for (int i = 0; i < kOctet; ++i) octet.v[i] = i < count ? from[i] : 0.0f;
  return octet;
}

// Writes columns column .. column + 7; those beyond y.cols, the row's padding, become zero.
// REQUIRES: column is a multiple of 8.
LORAD_DEVICE void StoreOctet(const TensorView& y, int row, int column, Octet octet) {
  for (int i = 0; i < kOctet; ++i) {
    if (column + i >= y.cols) octet.v[i] = 0.0f;
  }
  const float* v = octet.v;
  const size_t at = size_t(row) * size_t(y.stride) + size_t(column);
  if (y.full) {
    float* to = static_cast<float*>(y.data) + at;
    Store16(to, {FloatToBits(v[0]), FloatToBits(v[1]), FloatToBits(v[2]), FloatToBits(v[3])});
    Store16(to + 4, {FloatToBits(v[4]), FloatToBits(v[5]), FloatToBits(v[6]), FloatToBits(v[7])});
  } else {
    Store16(static_cast<uint16_t*>(y.data) + at, {PackBf16(v[0], v[1]), PackBf16(v[2], v[3]),
                                                  PackBf16(v[4], v[5]), PackBf16(v[6], v[7])});
  }
}

}  // namespace lorad::kernels::cuda

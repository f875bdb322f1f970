// What every dense kernel computes, so that all give the same bits for a row: the order of the sum,
// and what happens to a finished sum.
//
// The inputs are cut into at most eight chunks, whose length depends on the matrix alone. A chunk
// is one chain of m16n8k16 products with fp32 sums, in ascending blocks of 32 inputs. Two products
// make a block: with inputs 8t + e (t = 0..3, e = 0..7), the first takes e = 0..3 and the second
// e = 4..7, where input 8t + e (e = 0, 1) stands at the product's k = 2t + e, and e = 2, 3 at
// k = 2t + 6 + e. That is what a lane finds in 16 bytes of a row.
// int4: a chain ends after 64 inputs; times the group's scale it is added to the chunk's sum.
// The chunks' sums are added in order in fp32. Then: times the row's scale (int8, fp8), plus bias,
// plus what y was, rounded once.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/dense_decode.h"
#include "kernels/cuda/dense_weights.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/octet.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

inline constexpr int kMaxChunks = 8;

LORAD_HOST_DEVICE constexpr int ChunkInputs(int stride) {
  constexpr int kGranule = 128;  // whole lines of every format
  return (stride + kMaxChunks * kGranule - 1) / (kMaxChunks * kGranule) * kGranule;
}
LORAD_HOST_DEVICE constexpr int Chunks(int stride) {
  return (stride + ChunkInputs(stride) - 1) / ChunkInputs(stride);
}

LORAD_DEVICE int Least(int a, int b) { return a < b ? a : b; }

// The first (`half` 0) or second product of a block: x of rows g and g + 8, quarters of lines.
LORAD_DEVICE void MultiplyHalf(float (&sums)[4], const Vec4& x, const Vec4& x8,
                               const OctetBits& weights, int half) {
  if (half == 0) {
    const uint32_t a[4] = {x.x, x8.x, x.y, x8.y};
    Mma16816(sums, a, weights.pair[0], weights.pair[1]);
  } else {
    const uint32_t a[4] = {x.z, x8.z, x.w, x8.w};
    Mma16816(sums, a, weights.pair[2], weights.pair[3]);
  }
}

// Where sums of chunks go at the end.
struct Output {
  TensorView y;
  const float* row_scales = nullptr;  // int8, fp8
  const float* bias = nullptr;
  bool accumulate = false;
};

// Finishes eight columns of a row. REQUIRES: column is a multiple of 8 below y.cols.
LORAD_DEVICE void StoreSums(const Output& out, int row, int column, Octet sums) {
  const int count = out.y.cols - column;
  Octet bias = {};
  if (out.bias != nullptr) bias = LoadOctet(out.bias + column, count);
  if (out.row_scales != nullptr) {
    const Octet scales = LoadOctet(out.row_scales + column, count);
    // Said outright: a compiler may or may not contract a product and a sum.
    for (int i = 0; i < kOctet; ++i) sums.v[i] = fmaf(sums.v[i], scales.v[i], bias.v[i]);
  } else {
    for (int i = 0; i < kOctet; ++i) sums.v[i] += bias.v[i];
  }
  if (out.accumulate) {
    const Octet before = LoadOctet(out.y, row, column);
    for (int i = 0; i < kOctet; ++i) sums.v[i] += before.v[i];
  }
  StoreOctet(out.y, row, column, sums);
}

}  // namespace lorad::kernels::cuda

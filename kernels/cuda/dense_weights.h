// How a weight matrix lies in device memory. Rows (outputs) follow one another; a row is cut into
// lines of 64 bytes, the unit that a warp loads: eight rows by one line, 16 bytes a lane.
//
// A line holds 32 (bf16), 64 (int8, fp8) or 128 (int4) inputs, that is 1, 2 or 4 blocks of 32. Its
// quarter t (16 bytes) holds inputs 8t .. 8t+7 of every block, block after block: so a lane that
// has loaded a quarter finds there the fragments of its tensor-core products (dense_sum.h), and
// meets the inputs in the same order in every format. For bf16 this is the plain row.
// Within its 8 bytes (int8, fp8) or 4 bytes (int4) an octet of inputs is in the order that decodes
// with the fewest instructions (dense_decode.h). A row's last line is filled up with zeros.
#pragma once

#include <cstdint>

#include "kernels/cuda/host_device.h"
#include "kernels/quantise.h"
#include "kernels/types.h"

namespace lorad::kernels::cuda {

inline constexpr int kLineBytes = 64;
inline constexpr int kBlockInputs = 32;

LORAD_HOST_DEVICE constexpr int LineInputs(WeightFormat format) {
  return format == WeightFormat::kBf16   ? kBlockInputs
         : format == WeightFormat::kInt4 ? 4 * kBlockInputs
                                         : 2 * kBlockInputs;
}

// `stride`: inputs of a row with their padding, a multiple of 64.
LORAD_HOST_DEVICE constexpr int LinesPerRow(WeightFormat format, int stride) {
  return (stride + LineInputs(format) - 1) / LineInputs(format);
}
LORAD_HOST_DEVICE constexpr int64_t WeightRowBytes(WeightFormat format, int stride) {
  return int64_t{LinesPerRow(format, stride)} * kLineBytes;
}
LORAD_HOST_DEVICE constexpr int ScalesPerRow(WeightFormat format, int stride) {
  return format == WeightFormat::kBf16   ? 0
         : format == WeightFormat::kInt4 ? stride / kScaleInputs
                                         : 1;
}

// Where, from the start of a row, the octet of inputs `input` .. input+7 starts.
// REQUIRES: input is a multiple of 8.
LORAD_HOST_DEVICE constexpr int64_t OctetOffset(WeightFormat format, int input) {
  const int inputs = LineInputs(format);
  const int octet_bytes = 16 * kBlockInputs / inputs;
  const int block = input % inputs / kBlockInputs;
  const int quarter = input % kBlockInputs / 8;
  return int64_t{input / inputs} * kLineBytes + quarter * 16 + block * octet_bytes;
}

}  // namespace lorad::kernels::cuda

// The low-precision weight formats (WeightFormat) as numbers: which code a weight becomes, and what
// a code stands for. One definition for every backend, so that a model means the same on each;
// where codes lie in memory is the backend's own business.
//
//   kInt8  w = code * scale, scale = max|w of the row| / 127
//   kFp8   w = code * scale, scale = max|w of the row| / 448; codes are e4m3 (OCP 8-bit floating
//          point: bias 7, no infinity, 448 the largest)
//   kInt4  w = code * scale, scale = max|w of a group of 64 inputs| / 7
// Codes are the nearest, ties to even. A group whose scale would not be a normal float is zero.
//
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/types.h"

namespace lorad::kernels {

inline constexpr int kScaleInputs = 64;  // of kInt4 that share a scale

inline constexpr WeightFormat kWeightFormats[] = {WeightFormat::kBf16, WeightFormat::kInt8,
                                                  WeightFormat::kInt4, WeightFormat::kFp8};
// "bf16", "int8", "int4", "fp8".
std::string_view Name(WeightFormat format);

// Scales of a row of `inputs` weights; 0 for kBf16.
int ScalesOf(WeightFormat format, int inputs);

// Codes and scales of one row. A code is the two's complement (kInt8), q + 8 in 1 .. 15 (kInt4) or
// the bits of e4m3 (kFp8).  REQUIRES: values are finite, there are as many codes as values and
// ScalesOf() scales, format is not kBf16.
void QuantiseRow(WeightFormat format, std::span<const float> values, std::span<uint8_t> codes,
                 std::span<float> scales);

// What a code stands for, without its scale: exactly a bf16. REQUIRES: format is not kBf16.
float ValueOfCode(WeightFormat format, uint8_t code);

}  // namespace lorad::kernels

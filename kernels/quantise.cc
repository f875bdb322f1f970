#include "kernels/quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "memory/base/check.h"

namespace lorad::kernels {
namespace {

constexpr float kInt8Max = 127.0f;
constexpr float kFp8Max = 448.0f;
constexpr float kInt4Max = 7.0f;

struct Scale {
  float value = 0;    // what a code of 1 stands for
  float inverse = 0;  // zero where all codes are zero
};

Scale ScaleOf(std::span<const float> values, float largest_code) {
  // Magnitudes are in the order of their bits, and a loop over integers vectorises.
  uint32_t largest = 0;
  for (const float v : values)
    largest = std::max(largest, std::bit_cast<uint32_t>(v) & 0x7fffffffu);
  const float scale = std::bit_cast<float>(largest) / largest_code;
  // Below that the scale, or its inverse, would leave the range of a float.
  if (scale < std::numeric_limits<float>::min()) return {};
  return {scale, 1.0f / scale};
}

// Nearest integer, ties to even, of |value| < 2^22: adding 1.5 * 2^23 leaves it in the low bits.
int32_t NearestInteger(float value) {
  constexpr float kShift = 12582912.0f;
  return std::bit_cast<int32_t>(value + kShift) - std::bit_cast<int32_t>(kShift);
}

void EncodeIntegers(std::span<const float> values, float inverse, int32_t largest, int32_t offset,
                    uint8_t* codes) {
  for (size_t i = 0; i < values.size(); ++i) {
    const int32_t nearest = NearestInteger(values[i] * inverse);
    codes[i] = static_cast<uint8_t>(std::min(std::max(nearest, -largest), largest) + offset);
  }
}

// To nearest, ties to even, saturating.
uint8_t EncodeFp8(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal: rounded to three bits of mantissa; the exponent's bias goes from 127 to 7.
  const uint32_t normal =
      ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - ((127u - 7u) << 3);
  // Below 2^-6: a multiple of 2^-9, which is the step of floats at 2^14.
  constexpr float kShift = 16384.0f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + kShift) -
                             std::bit_cast<uint32_t>(kShift);
  const uint32_t code = magnitude < 0x3c800000u ? subnormal : normal;
  return static_cast<uint8_t>(std::min(code, 0x7eu) | (bits >> 31 << 7));
}

float ValueOfFp8(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

}  // namespace

std::string_view Name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
    case WeightFormat::kFp8:
      return "fp8";
  }
  return "";
}

int ScalesOf(WeightFormat format, int inputs) {
  if (format == WeightFormat::kBf16) return 0;
  return format == WeightFormat::kInt4 ? (inputs + kScaleInputs - 1) / kScaleInputs : 1;
}

void QuantiseRow(WeightFormat format, std::span<const float> values, std::span<uint8_t> codes,
                 std::span<float> scales) {
  LORAD_CHECK(codes.size() == values.size());
  LORAD_CHECK(static_cast<int>(scales.size()) == ScalesOf(format, static_cast<int>(values.size())));
  if (format == WeightFormat::kInt4) {
    for (size_t group = 0; group < scales.size(); ++group) {
      const size_t at = group * kScaleInputs;
      const auto part = values.subspan(at, std::min(size_t{kScaleInputs}, values.size() - at));
      const Scale scale = ScaleOf(part, kInt4Max);
      scales[group] = scale.value;
      EncodeIntegers(part, scale.inverse, 7, 8, codes.data() + at);
    }
    return;
  }
  LORAD_CHECK(format != WeightFormat::kBf16);
  const bool fp8 = format == WeightFormat::kFp8;
  const Scale scale = ScaleOf(values, fp8 ? kFp8Max : kInt8Max);
  scales[0] = scale.value;
  if (fp8) {
    for (size_t i = 0; i < values.size(); ++i) codes[i] = EncodeFp8(values[i] * scale.inverse);
  } else {
    EncodeIntegers(values, scale.inverse, 127, 0, codes.data());
  }
}

float ValueOfCode(WeightFormat format, uint8_t code) {
  LORAD_CHECK(format != WeightFormat::kBf16);
  if (format == WeightFormat::kFp8) return ValueOfFp8(code);
  return static_cast<float>(format == WeightFormat::kInt4 ? int{code} - 8
                                                          : int{static_cast<int8_t>(code)});
}

}  // namespace lorad::kernels

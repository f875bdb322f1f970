#include "kernels/cuda/dense_weights.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <set>

#include "tests/unit/kernels/cuda/dense_case.h"

namespace lorad::kernels::cuda {
namespace {

double PairAt(const OctetBits& bits, int i) {
  const uint32_t pair = bits.pair[i / 2];
  return i % 2 ? HighBf16(pair) : LowBf16(pair);
}

// Every code at every place of a word, beside other codes.
TEST(DecodeTest, EveryInt8) {
  const int place[] = {0, 2, 1, 3};
  for (int code = -128; code < 128; ++code) {
    for (int i = 0; i < 4; ++i) {
      for (const uint32_t others : {0u, 0xffffffffu, 0x817f0180u}) {
        const uint32_t mask = 0xffu << (8 * place[i]);
        const uint32_t word = (others & ~mask) | uint32_t(code & 0xff) << (8 * place[i]);
        OctetBits bits = {};
        DecodeInt8(word, bits.pair[0], bits.pair[1]);
        EXPECT_EQ(PairAt(bits, i), code);
      }
    }
  }
}

double Fp8Value(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

TEST(DecodeTest, EveryFp8) {
  const int place[] = {0, 2, 1, 3};
  for (int code = 0; code < 256; ++code) {
    for (int i = 0; i < 4; ++i) {
      for (const uint32_t others : {0u, 0xffffffffu, 0x817f0180u}) {
        const uint32_t mask = 0xffu << (8 * place[i]);
        const uint32_t word = (others & ~mask) | uint32_t(code) << (8 * place[i]);
        OctetBits bits = {};
        DecodeFp8(word, bits.pair[0], bits.pair[1]);
        // 0x7f and 0xff are NaN in e4m3; no packed matrix has them.
        EXPECT_EQ(PairAt(bits, i), Fp8Value(code)) << code;
        EXPECT_EQ(std::signbit(PairAt(bits, i)), code >= 128) << code;
      }
    }
  }
}

TEST(DecodeTest, EveryInt4) {
  for (int code = 0; code < 16; ++code) {
    for (int i = 0; i < 8; ++i) {
      for (const uint32_t others : {0u, 0xffffffffu, 0x1e2d3c4bu}) {
        const int shift = 4 * (i / 2 + 4 * (i % 2));
        const uint32_t word = (others & ~(0xfu << shift)) | uint32_t(code) << shift;
        EXPECT_EQ(PairAt(DecodeInt4(word), i), code - 8);
      }
    }
  }
}

TEST(LayoutTest, OctetsFillRowsWithoutOverlap) {
  for (const WeightFormat format : kFormats) {
    const int octet_bytes = 512 / LineInputs(format);
    for (const int stride : {64, 128, 192, 4096}) {
      std::set<int64_t> offsets;
      for (int input = 0; input < stride; input += 8) {
        const int64_t at = OctetOffset(format, input);
        EXPECT_EQ(at % octet_bytes, 0);
        EXPECT_LE(at + octet_bytes, WeightRowBytes(format, stride));
        EXPECT_TRUE(offsets.insert(at).second);
        if (format == WeightFormat::kBf16) {
          EXPECT_EQ(at, 2 * input);
        }
      }
    }
  }
  EXPECT_EQ(WeightRowBytes(WeightFormat::kInt4, 192), 128);  // one and a half lines
}

// The e4m3 number nearest to `value`, ties to even, by trying all.
double NearestFp8(double value) {
  int best = 0;
  for (int code = 0; code < 0x7f; ++code) {
    const double now = std::fabs(std::fabs(value) - Fp8Value(code));
    const double then = std::fabs(std::fabs(value) - Fp8Value(best));
    if (now < then || (now == then && code % 2 == 0)) best = code;
  }
  return std::copysign(Fp8Value(best), value);
}

double MaxMagnitude(const float* values, int count) {
  double largest = 0;
  for (int i = 0; i < count; ++i) largest = std::max<double>(largest, std::fabs(values[i]));
  return largest;
}

TEST(PackTest, EveryWeightIsTheNearest) {
  for (const int cols : {1, 63, 64, 65, 200, 320}) {
    const int rows = 5;
    std::vector<float> values = NormalValues(size_t(rows * cols), 3, 0.02f);
    for (int i = 0; i < cols; ++i) values[size_t(2 * cols + i)] = 0;  // a row of zeros
    for (int i = 0; i < std::min(cols, 64); ++i) values[size_t(cols + i)] = -0.0f;
    for (const WeightFormat format : kFormats) {
      const Weights weights(values, rows, cols, format);
      const WeightsView& w = weights.view();
      for (int row = 0; row < rows; ++row) {
        const float* from = values.data() + row * cols;
        for (int col = 0; col < w.stride; ++col) {
          const double stored = weights.Weight(row, col);
          if (col >= cols) {
            EXPECT_EQ(stored, 0);
            continue;
          }
          const double value = from[col];
          double want = 0;
          switch (format) {
            case WeightFormat::kBf16:
              want = FromBf16(ToBf16(from[col]));
              break;
            case WeightFormat::kInt8: {
              const double scale = MaxMagnitude(from, cols) / 127;
              EXPECT_NEAR(w.scales[row], scale, scale * 1e-6);
              if (scale > 0) want = std::nearbyint(value / scale) * scale;
              break;
            }
            case WeightFormat::kFp8: {
              const double scale = MaxMagnitude(from, cols) / 448;
              EXPECT_NEAR(w.scales[row], scale, scale * 1e-6);
              if (scale > 0) want = NearestFp8(value / scale) * scale;
              break;
            }
            case WeightFormat::kInt4: {
              const int group = col / 64 * 64;
              const double scale = MaxMagnitude(from + group, std::min(64, cols - group)) / 7;
              EXPECT_NEAR(w.scales[row * (w.stride / 64) + col / 64], scale, scale * 1e-6);
              if (scale > 0) want = std::nearbyint(value / scale) * scale;
              break;
            }
          }
          EXPECT_NEAR(stored, want, std::fabs(want) * 1e-6)
              << "format " << int(format) << " row " << row << " col " << col;
        }
      }
    }
  }
}

// Values between codes: every midpoint of fp8 goes to the even neighbour.
TEST(PackTest, Fp8TiesGoToEvenAndTheRestSaturates) {
  std::vector<float> values = {448.0f};  // so that the scale is 1
  std::vector<double> want = {448.0};
  for (int code = 0; code < 0x7e; ++code) {
    for (const double sign : {1.0, -1.0}) {
      values.push_back(float(sign * (Fp8Value(code) + Fp8Value(code + 1)) / 2));
      want.push_back(sign * Fp8Value(code % 2 ? code + 1 : code));
      values.push_back(float(sign * Fp8Value(code)));
      want.push_back(sign * Fp8Value(code));
    }
  }
  const Weights weights(values, 1, int(values.size()), WeightFormat::kFp8);
  EXPECT_EQ(weights.view().scales[0], 1.0f);
  for (int i = 0; i < int(values.size()); ++i) {
    EXPECT_EQ(weights.Weight(0, i), want[size_t(i)]) << values[size_t(i)];
  }
}

TEST(PackTest, TinyRowsCountAsZero) {
  std::vector<float> values(64, 1e-42f);
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8}) {
    const Weights weights(values, 1, 64, format);
    EXPECT_EQ(weights.view().scales[0], 0.0f);
    EXPECT_EQ(weights.Weight(0, 5), 0.0);
  }
}

// Every type of source, at an odd address, alone or stacked.
TEST(PackTest, SourcesOfAllTypesStacked) {
  const int cols = 70;
  const float numbers[] = {0.0f, 1.0f, -2.5f, 0.33325195f, 6.1035156e-5f, 5.9604645e-8f, -65504.0f};
  std::vector<std::byte> f32(4 * 2 * cols + 1), f16(2 * 3 * cols + 1), bf16(2 * cols + 1);
  const uint16_t halves[] = {0x0000, 0x3c00, 0xc100, 0x3555, 0x0400, 0x0001, 0xfbff};
  for (int i = 0; i < 3 * cols; ++i) {
    const float value = numbers[i % 7];
    const uint16_t rounded = ToBf16(value);
    if (i < 2 * cols) std::memcpy(f32.data() + 1 + 4 * i, &value, 4);
    std::memcpy(f16.data() + 1 + 2 * i, &halves[i % 7], 2);
    if (i < cols) std::memcpy(bf16.data() + 1 + 2 * i, &rounded, 2);
  }
  const HostMatrix stacked[] = {{DType::kF32, f32.data() + 1, 2, cols},
                                {DType::kF16, f16.data() + 1, 3, cols},
                                {DType::kBF16, bf16.data() + 1, 1, cols}};
  const HostWeights packed = PackWeights(stacked, WeightFormat::kBf16);
  EXPECT_EQ(packed.rows, 6);
  EXPECT_EQ(packed.cols, cols);
  EXPECT_EQ(packed.stride, 128);
  EXPECT_TRUE(packed.scales.empty());
  ASSERT_EQ(packed.data.size(), size_t{6 * 128 * 2});
  const auto* bits = reinterpret_cast<const uint16_t*>(packed.data.data());
  for (int row = 0; row < 6; ++row) {
    const int first = row < 2 ? row : row < 5 ? row - 2 : 0;
    for (int col = 0; col < 128; ++col) {
      const uint16_t want = col < cols ? ToBf16(numbers[(first * cols + col) % 7]) : uint16_t{0};
      EXPECT_EQ(bits[row * 128 + col], want) << row << " " << col;
    }
  }
  // The same numbers give the same codes, whatever type they came in.
  const HostWeights bytes = PackWeights(stacked, WeightFormat::kInt8);
  EXPECT_EQ(std::memcmp(bytes.data.data(), bytes.data.data() + 5 * 128, 128), 0);
}

// Root mean square of the error relative to that of the weights, on normal weights.
TEST(PackTest, ErrorsAreThoseOfTheFormats) {
  const int rows = 64, cols = 1024;
  const std::vector<float> values = NormalValues(size_t(rows * cols), 11, 0.05f);
  for (const WeightFormat format : kFormats) {
    const Weights weights(values, rows, cols, format);
    double error = 0, norm = 0;
    for (int row = 0; row < rows; ++row) {
      for (int col = 0; col < cols; ++col) {
        const double value = values[size_t(row * cols + col)];
        error += std::pow(weights.Weight(row, col) - value, 2);
        norm += value * value;
      }
    }
    const double relative = std::sqrt(error / norm);
    RecordProperty("relative_error_of_format_" + std::to_string(int(format)),
                   std::to_string(relative));
    const auto [least, most] = format == WeightFormat::kBf16   ? std::pair(0.001, 0.002)
                               : format == WeightFormat::kInt8 ? std::pair(0.004, 0.009)
                               : format == WeightFormat::kFp8  ? std::pair(0.02, 0.03)
                                                               : std::pair(0.08, 0.12);
    EXPECT_GT(relative, least);
    EXPECT_LT(relative, most);
  }
}

}  // namespace
}  // namespace lorad::kernels::cuda

#include "kernels/quantise.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace lorad::kernels {
namespace {

constexpr WeightFormat kCoded[] = {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8};

struct Row {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<float> values;  // what the codes stand for
};

Row Quantise(WeightFormat format, const std::vector<float>& values) {
  Row row;
  row.codes.resize(values.size());
  row.scales.resize(size_t(ScalesOf(format, int(values.size()))));
  QuantiseRow(format, values, row.codes, row.scales);
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t group = format == WeightFormat::kInt4 ? i / kScaleInputs : 0;
    row.values.push_back(ValueOfCode(format, row.codes[i]) * row.scales[group]);
  }
  return row;
}

// Every value that a format has, ascending.
std::vector<double> Grid(WeightFormat format) {
  std::set<double> grid;
  if (format == WeightFormat::kFp8) {
    for (int exponent = -6; exponent <= 8; ++exponent) {
      for (int mantissa = 0; mantissa < 8; ++mantissa) {
        const double v = std::ldexp(1 + mantissa / 8.0, exponent);
        if (v <= 448) grid.insert({v, -v});
      }
    }
    for (int mantissa = 0; mantissa < 8; ++mantissa) {
      grid.insert({std::ldexp(mantissa, -9), -std::ldexp(mantissa, -9)});
    }
  } else {
    const int largest = format == WeightFormat::kInt8 ? 127 : 7;
    for (int v = -largest; v <= largest; ++v) grid.insert(v);
  }
  return {grid.begin(), grid.end()};
}

TEST(Quantise, TakesTheNearestOfTheFormatsValues) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  for (const WeightFormat format : kCoded) {
    const std::vector<double> grid = Grid(format);
    for (const size_t count : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{300}}) {
      for (const float size : {1.0f, 1e-20f, 3e30f}) {
        std::vector<float> values(count);
        for (float& v : values) v = normal(random) * size;
        const Row row = Quantise(format, values);
        const size_t group_size = format == WeightFormat::kInt4 ? kScaleInputs : count;
        for (size_t i = 0; i < count; ++i) {
          const size_t first = i / group_size * group_size;
          double largest = 0;
          for (size_t k = first; k < std::min(count, first + group_size); ++k) {
            largest = std::max(largest, std::fabs(double{values[k]}));
          }
          const double scale = row.scales[i / group_size];
          EXPECT_NEAR(scale, largest / grid.back(), scale * 1e-6);
          double nearest = std::numeric_limits<double>::infinity();
          for (const double v : grid) nearest = std::min(nearest, std::fabs(v * scale - values[i]));
          EXPECT_LE(std::fabs(row.values[i] - double{values[i]}),
                    nearest + scale * grid.back() * 1e-6);
        }
      }
    }
  }
}

TEST(Quantise, TiesGoToTheEvenCode) {
  // The scale is 1.
  const Row int8 = Quantise(WeightFormat::kInt8, {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f});
  EXPECT_EQ(int8.values, (std::vector<float>{127, 0, 2, 2, 0, -2, -2}));
  const Row int4 = Quantise(WeightFormat::kInt4, {-7, 0.5f, 1.5f, 2.5f, -5.5f});
  EXPECT_EQ(int4.values, (std::vector<float>{-7, 0, 2, 2, -6}));
  EXPECT_EQ(int4.codes, (std::vector<uint8_t>{1, 8, 10, 10, 2}));
  // 17 lies between 16 and 18, 0x1.8p-9 between one and two steps of the subnormals.
  const Row fp8 = Quantise(WeightFormat::kFp8, {448, 17, 19, -17, 0x1.8p-9f, 0x1p-10f});
  EXPECT_EQ(fp8.values, (std::vector<float>{448, 16, 20, -16, 0x1p-8f, 0}));
}

TEST(Quantise, EveryCodeComesBack) {
  for (const WeightFormat format : kCoded) {
    std::vector<float> values;
    for (const double v : Grid(format)) values.push_back(float(v));
    for (size_t at = 0; at < values.size(); at += 62) {
      std::vector<float> part(values.begin() + long(at),
                              values.begin() + long(std::min(values.size(), at + 62)));
      part.push_back(values.back());  // makes the scale 1
      EXPECT_EQ(Quantise(format, part).values, part);
    }
  }
}

TEST(Quantise, ZerosAndTinyRowsAreZero) {
  for (const WeightFormat format : kCoded) {
    for (const float v : {0.0f, -0.0f, 1e-44f, 1e-38f}) {
      const Row row = Quantise(format, std::vector<float>(70, v));
      for (const float scale : row.scales) EXPECT_EQ(scale, 0);
      for (const float value : row.values) EXPECT_EQ(value, 0);
    }
  }
}

}  // namespace
}  // namespace lorad::kernels

#include "kernels/cpu/bf16.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace lorad::kernels::cpu {
namespace {

TEST(Bf16, EveryBf16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = FloatOfBf16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FloatOfBf16(Bf16OfFloat(value))));
    } else {
      ASSERT_EQ(Bf16OfFloat(value), bits);
    }
  }
}

TEST(Bf16, RoundsToNearestAndTiesToEven) {
  const float step = 0x1p-7f;  // between neighbours of 1
  EXPECT_EQ(FloatOfBf16(Bf16OfFloat(1 + 0.49f * step)), 1.0f);
  EXPECT_EQ(FloatOfBf16(Bf16OfFloat(1 + 0.51f * step)), 1 + step);
  EXPECT_EQ(FloatOfBf16(Bf16OfFloat(1 + 0.5f * step)), 1.0f);
  EXPECT_EQ(FloatOfBf16(Bf16OfFloat(1 + 1.5f * step)), 1 + 2 * step);
  EXPECT_EQ(FloatOfBf16(Bf16OfFloat(-1 - 1.5f * step)), -1 - 2 * step);
  EXPECT_TRUE(std::isinf(FloatOfBf16(Bf16OfFloat(std::numeric_limits<float>::max()))));
}

TEST(Bf16, HalfPrecisionIsExactDenormalsIncluded) {
  EXPECT_EQ(FloatOfF16(0x3c00), 1.0f);
  EXPECT_EQ(FloatOfF16(0xc500), -5.0f);
  EXPECT_EQ(FloatOfF16(0x7bff), 65504.0f);
  EXPECT_EQ(FloatOfF16(0x0001), 0x1p-24f);
  EXPECT_EQ(FloatOfF16(0x83ff), -1023 * 0x1p-24f);
  EXPECT_EQ(FloatOfF16(0x0400), 0x1p-14f);
  EXPECT_TRUE(std::signbit(FloatOfF16(0x8000)));
  EXPECT_TRUE(std::isinf(FloatOfF16(0xfc00)) && FloatOfF16(0xfc00) < 0);
  EXPECT_TRUE(std::isnan(FloatOfF16(0x7e01)));
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const double exponent = bits >> 10;
    const double want = exponent == 0 ? std::ldexp(bits, -24)
                                      : std::ldexp(1024.0 + (bits & 0x3ff), int(exponent) - 25);
    ASSERT_EQ(FloatOfF16(static_cast<uint16_t>(bits)), want);
  }
}

}  // namespace
}  // namespace lorad::kernels::cpu

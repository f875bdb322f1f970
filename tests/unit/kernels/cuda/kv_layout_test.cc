// The layout of a page: every element has a place of its own, a block of tokens is one run, and
// RopeAppend writes its token's places and nothing else. And e4m3.
#include "kernels/cuda/kv_layout.h"

#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/fp8.h"
#include "tests/unit/kernels/cuda/attention_rig.h"

namespace lorad::kernels::cuda {
namespace {

TEST(CudaKvLayout, EveryElementHasItsOwnPlaceInItsBlock) {
  for (const int page_tokens : {16, 48, 128}) {
    for (const int padded_dim : {32, 96, 256}) {
      const KvLayout layout{.page_tokens = page_tokens, .padded_dim = padded_dim};
      std::set<int> keys, values;
      for (int slot = 0; slot < page_tokens; ++slot) {
        for (int dim = 0; dim < padded_dim; ++dim) {
          for (const int at : {layout.Key(slot, dim), layout.Value(slot, dim)}) {
            ASSERT_EQ(at / (kBlockTokens * padded_dim), slot / kBlockTokens);
          }
          keys.insert(layout.Key(slot, dim));
          values.insert(layout.Value(slot, dim));
        }
      }
      for (const auto& places : {keys, values}) {
        ASSERT_EQ(places.size(), size_t(page_tokens * padded_dim));
        EXPECT_EQ(*places.begin(), 0);
        EXPECT_EQ(*places.rbegin(), page_tokens * padded_dim - 1);
      }
    }
  }
}

TEST(CudaKvLayout, ALanesPartIsItsPartOfTheProduct) {
  const KvLayout layout{.page_tokens = 32, .padded_dim = 64};
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(layout.Key(16 + g, 32 + 8 * t + i), 16 * 64 + 1 * kTileElements + 8 * lane + i);
      const int token = 16 + 2 * t + i % 2 + i / 2 % 2 * 8;
      EXPECT_EQ(layout.Value(token, 48 + g + i / 4 * 8),
                16 * 64 + 3 * kTileElements + 8 * lane + i);
    }
  }
}

TEST(CudaKvLayout, PageBytes) {
  const KvGeometry llama{.layers = 32, .kv_heads = 8, .head_dim = 128, .page_tokens = 16};
  EXPECT_EQ(KvPageBytes(llama, KvFormat::kBf16), size_t{2} << 20);
  EXPECT_EQ(KvPageBytes(llama, KvFormat::kFp8), (size_t{1} << 20) + 32 * 8 * 16 * 8);
  for (const int head_dim : {2, 18, 80, 256}) {
    for (const KvFormat format : {KvFormat::kBf16, KvFormat::kFp8}) {
      const KvGeometry odd{.layers = 3, .kv_heads = 5, .head_dim = head_dim, .page_tokens = 48};
      const size_t bytes = KvPageBytes(odd, format);
      EXPECT_EQ(bytes % kPageGranule, 0u);
      const size_t element = format == KvFormat::kFp8 ? 1 : 2;
      EXPECT_GE(bytes, 2u * 3 * 5 * 48 * size_t(PaddedHeadDim(head_dim)) * element);
    }
  }
}

TEST(CudaKvLayout, RopeAppendWritesItsTokenOnly) {
  for (const int head_dim : {6, 64, 80}) {
    for (const KvFormat format : {KvFormat::kBf16, KvFormat::kFp8}) {
      AttentionRig rig({.shape = {.heads = 2, .kv_heads = 2, .head_dim = head_dim, .scale = 1},
                        .page_tokens = 32,
                        .format = format});
      rig.Step({{0, 19}}, false);
      const KvView kv = rig.kv();
      const std::vector<std::byte> before = rig.slab();
      rig.Step({{0, 1}}, false);
      const std::vector<std::byte>& all = rig.slab();

      // The places of token 19 in the rig's middle layer.
      const KvLayout layout{.page_tokens = 32,
                            .padded_dim = PaddedHeadDim(head_dim),
                            .element_bytes = format == KvFormat::kFp8 ? 1 : 2,
                            .kv_heads = 2};
      std::set<size_t> expected;
      const size_t page = size_t(kv.slab - all.data()) + rig.pages(0)[0] * kv.page_bytes;
      const auto expect = [&](size_t at, int bytes) {
        for (int i = 0; i < bytes; ++i) expected.insert(at + size_t(i));
      };
      for (int head = 0; head < 2; ++head) {
        const size_t start = page + layout.Head(1, head);
        const size_t width = size_t(layout.element_bytes);
        for (int dim = 0; dim < layout.padded_dim; ++dim) {
          expect(start + size_t(layout.Keys()) + width * size_t(layout.Key(19, dim)),
                 layout.element_bytes);
          if (dim >= head_dim) continue;
          expect(start + size_t(layout.Values()) + width * size_t(layout.Value(19, dim)),
                 layout.element_bytes);
        }
        if (!layout.scaled()) continue;
        expect(start + size_t(layout.KeyScales()) + 4 * 19, 4);
        expect(start + size_t(layout.ValueScales()) + 4 * 19, 4);
      }
      size_t changed = 0;
      for (size_t i = 0; i < all.size(); ++i) {
        if (all[i] == before[i]) continue;
        ++changed;
        ASSERT_TRUE(expected.contains(i)) << "byte " << i << " of the slab";
      }
      // Few bytes that are written were 0xff before and are so again.
      EXPECT_GT(changed, expected.size() * 9 / 10);
    }
  }
}

// --- e4m3 ---

double Decoded(uint32_t code) {
  const int exponent = int(code >> 3 & 15), mantissa = int(code & 7);
  const double size =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -size : size;
}

TEST(CudaFp8, EveryCodeSurvives) {
  for (uint32_t code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) continue;  // NaN
    const uint32_t other = (code * 37 + 11) & 0x7e;
    const uint32_t pair = Fp8PairToBf16(code | other << 8);
    EXPECT_EQ(LowBf16(pair), Decoded(code)) << code;
    EXPECT_EQ(HighBf16(pair), Decoded(other)) << other;
    EXPECT_EQ(ToFp8(float(Decoded(code))), code);
  }
  // A NaN's code is still finite, so that a weight of zero makes it zero.
  EXPECT_TRUE(std::isfinite(LowBf16(Fp8PairToBf16(0x7fff))));
}

TEST(CudaFp8, RoundsToTheNearestTiesToEven) {
  std::mt19937_64 random(3);
  const auto expect_nearest = [](float value) {
    const uint32_t got = ToFp8(value);
    ASSERT_NE(got & 0x7f, 0x7fu);
    const double error = std::abs(Decoded(got) - double{value});
    for (uint32_t code = 0; code < 256; ++code) {
      if ((code & 0x7f) == 0x7f) continue;
      const double other = std::abs(Decoded(code) - double{value});
      ASSERT_LE(error, other) << value;
      const bool tie = other == error && Decoded(code) != Decoded(got);
      ASSERT_TRUE(!tie || got % 2 == 0) << value;
    }
    ASSERT_EQ(got >> 7, std::signbit(value) ? 1u : 0u);
  };
  for (int i = 0; i < 20000; ++i) {
    const float size = std::exp2(float(random() % 2200) / 100.0f - 12.0f);
    expect_nearest(random() % 2 ? size : -size);
  }
  for (uint32_t code = 0; code < 0x7e; ++code) {  // midpoints
    const auto middle = float((Decoded(code) + Decoded(code + 1)) / 2);
    for (const float value : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
      expect_nearest(value);
      expect_nearest(-value);
    }
  }
  EXPECT_EQ(ToFp8(1e30f), 0x7eu);
  EXPECT_EQ(ToFp8(-448.0f), 0xfeu);
  EXPECT_EQ(ToFp8(0.0f), 0u);
}

}  // namespace
}  // namespace lorad::kernels::cuda

#include <algorithm>
#include <map>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/adapter_image.h"
#include "kernels/cpu/bf16.h"

namespace lorad::kernels::cpu {
namespace {

// Values are their own addresses: each is a different bf16.
struct Factors {
  std::vector<uint16_t> a, b;
  LowRankFactors view;
};

Factors Make(uint32_t site, uint32_t out_begin, int rank, int d_in, int out_cols) {
  Factors f;
  f.a.resize(size_t(rank) * size_t(d_in));
  f.b.resize(size_t(out_cols) * size_t(rank));
  for (size_t i = 0; i < f.a.size(); ++i) f.a[i] = static_cast<uint16_t>(1 + i % 30000);
  for (size_t i = 0; i < f.b.size(); ++i) f.b[i] = static_cast<uint16_t>(0x8001 + i % 30000);
  f.view = {.site = site, .out_begin = out_begin, .scale = 0.5f};
  f.view.a = {DType::kBF16, f.a.data(), rank, d_in};
  f.view.b = {DType::kBF16, f.b.data(), out_cols, rank};
  return f;
}

class AdapterImage : public testing::TestWithParam<TileOrder> {};

TEST_P(AdapterImage, PlacesEveryElementInItsLineAcrossScatteredPages) {
  constexpr size_t kPage = 4096;
  std::vector<Factors> made;
  made.push_back(Make(1, 40, 17, 70, 33));
  made.push_back(Make(0, 0, 1, 64, 16));
  made.push_back(Make(1, 0, 64, 70, 40));
  std::vector<LowRankFactors> factors;
  for (const Factors& f : made) factors.push_back(f.view);

  const AdapterLayout layout = PlanAdapterImage(factors, 3, kPage);
  // By hand: lines of A are rank * ceil(d_in/32), lines of B ceil(out/16) * ceil(rank/2).
  EXPECT_EQ(layout.image_bytes, 64u * ((2 + 1) + (64 * 3 + 17 * 3) + (3 * 32 + 3 * 9)));
  EXPECT_EQ(layout.pages, (layout.image_bytes + kPage - 1) / kPage);
  EXPECT_EQ(layout.At(0).size(), 1u);
  EXPECT_EQ(layout.At(1).size(), 2u);
  EXPECT_TRUE(layout.At(2).empty());

  std::vector<std::byte> memory(kPage * 64, std::byte{0xff});
  const PageSlab slab{memory.data(), kPage};
  std::vector<uint32_t> pages;
  for (uint32_t i = 0; i < layout.pages; ++i) pages.push_back(60 - 7 * i % 61);
  PackAdapterImage(layout, factors, slab, pages, GetParam());
  const auto line = [&](const TileRows& tile, uint32_t index) {
    const uint64_t at = tile.offset + uint64_t{index} * 64;
    return reinterpret_cast<const uint16_t*>(slab.Page(pages[at / kPage]) + at % kPage);
  };
  for (const Factors& f : made) {
    const auto modules = layout.At(f.view.site);
    const auto m = *std::ranges::find(modules, f.view.out_begin, &AdapterModule::out_begin);
    const uint32_t blocks = (m.d_in + 31) / 32, pairs = (m.rank + 1) / 2;
    EXPECT_EQ(m.a.rows, m.rank * blocks);
    for (uint32_t rank = 0; rank < m.rank; ++rank) {
      const uint32_t group = rank / 16 * 16, ranks = std::min(16u, m.rank - group);
      for (uint32_t k = 0; k < blocks * 32; ++k) {
        const uint32_t i = k % 32, r = rank - group;
        const uint32_t at =
            GetParam() == TileOrder::kRankMajor ? r * 32 + i : i / 2 * ranks * 2 + r * 2 + i % 2;
        const uint16_t got = line(m.a, group * blocks + k / 32 * ranks + at / 32)[at % 32];
        ASSERT_EQ(got, k < m.d_in ? f.a[rank * m.d_in + k] : 0);
      }
    }
    for (uint32_t out = 0; out < (m.out_cols + 15) / 16 * 16; ++out) {
      for (uint32_t rank = 0; rank < 2 * pairs; ++rank) {
        const uint16_t got = line(m.b, out / 16 * pairs + rank / 2)[out % 16 * 2 + rank % 2];
        ASSERT_EQ(got, out < m.out_cols && rank < m.rank ? f.b[out * m.rank + rank] : 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Orders, AdapterImage,
                         testing::Values(TileOrder::kRankMajor, TileOrder::kPairMajor));

TEST(AdapterPlan, APlanNeedsShapesOnly) {
  Factors f = Make(0, 0, 8, 64, 64);
  const AdapterLayout with_data = PlanAdapterImage(std::span(&f.view, 1), 1, 4096);
  f.view.a.data = f.view.b.data = nullptr;
  const AdapterLayout without = PlanAdapterImage(std::span(&f.view, 1), 1, 4096);
  EXPECT_EQ(with_data.image_bytes, without.image_bytes);
  EXPECT_EQ(PlanAdapterImage({}, 4, 4096).pages, 0u);
}

}  // namespace
}  // namespace lorad::kernels::cpu

// Where every element of an adapter lies: inside its tile, its tile inside a page, found by the
// formulas that kernels use, and nothing else in the image.
#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/adapter_index.h"
#include "kernels/cuda/adapter_ops.h"

namespace lorad::kernels::cuda {
namespace {

TEST(AdapterIndexTest, TilesHaveAPlaceForEachElement) {
  std::vector<bool> a(512), b(256);
  for (uint32_t rank = 0; rank < kTileRanks; ++rank) {
    for (uint32_t input = 0; input < kTileInputs; ++input) {
      const uint32_t at = AElement(rank, input);
      ASSERT_LT(at, 512u);
      EXPECT_FALSE(a[at]);
      a[at] = true;
      // A lane's 16 bytes are eight neighbouring inputs of one rank.
      EXPECT_EQ(at / 8 % 32, rank * 4 + input % 32 / 8);
      EXPECT_EQ(at % 8, input % 8);
    }
    for (uint32_t output = 0; output < kTileOutputs; ++output) {
      const uint32_t at = BElement(output, rank);
      ASSERT_LT(at, 256u);
      EXPECT_FALSE(b[at]);
      b[at] = true;
      // Product i of a group: operand b(2t..2t+1, n) of lane 4n + t is word i, and its result is in
      // lanes 4g + n/2 for n = 2t, 2t + 1: columns 8t + 2i and the next.
      const uint32_t lane = at / 8, i = at % 8 / 2, n = lane / 4;
      EXPECT_EQ(rank, lane % 4 * 2 + at % 2);
      EXPECT_EQ(output, n / 2 * 8 + 2 * i + n % 2);
    }
  }
  EXPECT_EQ(std::ranges::count(a, true), 512);
  EXPECT_EQ(std::ranges::count(b, true), 256);
}

TEST(AdapterIndexTest, PagesAreFoundWithoutDividing) {
  std::mt19937_64 random(3);
  const auto check = [&](uint32_t granules) {
    const PageSplit split = SplitPages(size_t{granules} * kGranule);
    ASSERT_EQ(split.granules, granules);
    const auto at = [&](uint64_t granule) {
      if (granule < kMaxGranules) {
        ASSERT_EQ(split.Page(uint32_t(granule)), granule / granules) << granules << " " << granule;
      }
    };
    // The ends of pages, where a quotient changes.
    for (uint64_t page : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{kMaxGranules} / granules,
                          random() % (kMaxGranules / granules + 1)}) {
      for (int64_t off = -2; off <= 2; ++off) {
        const int64_t granule = int64_t(page) * granules + off;
        if (granule >= 0) at(uint64_t(granule));
      }
    }
    at(kMaxGranules - 1);
    for (int i = 0; i < 8; ++i) at(random() % kMaxGranules);
  };
  for (uint32_t granules = 1; granules <= 40000; ++granules) check(granules);
  for (int i = 0; i < 20000; ++i) check(1 + uint32_t(random() % (kMaxGranules - 1)));
}

// Factors whose values are never zero, and differ from their neighbours.
struct Module {
  uint32_t site, out_begin;
  int rank, d_in, out_cols;
  std::vector<uint16_t> a, b;

  Module(uint32_t s, uint32_t begin, int r, int in, int out)
      : site(s), out_begin(begin), rank(r), d_in(in), out_cols(out) {
    a.resize(size_t(r) * size_t(in));
    b.resize(size_t(out) * size_t(r));
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<uint16_t>(1 + i % 32749);
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<uint16_t>(32769 + i % 32719);
  }
  LowRankFactors factors() const {
    LowRankFactors f{.site = site, .out_begin = out_begin, .scale = 0.5f + float(out_begin)};
    f.a = {DType::kBF16, a.data(), rank, d_in};
    f.b = {DType::kBF16, b.data(), out_cols, rank};
    return f;
  }
};

// An image and which of its 16-bit elements have been found.
class Image {
 public:
  Image(const std::vector<Module>& modules, uint32_t sites, size_t page_bytes)
      : page_bytes_(page_bytes), split_(SplitPages(page_bytes)) {
    for (const Module& m : modules) factors_.push_back(m.factors());
    layout_ = PlanAdapterImage(factors_, sites, page_bytes);
    bytes_.resize(size_t{layout_.pages} * page_bytes, std::byte{0xee});
    PackAdapterImage(layout_, factors_, page_bytes, bytes_);
    found_.resize(bytes_.size() / 2);
  }
  const AdapterLayout& layout() const { return layout_; }

  // The byte of the image that a kernel reads at `within` of a granule; the tile must be whole in
  // its page.
  size_t Byte(uint32_t granule, uint32_t tile_granules, uint32_t within) const {
    const uint32_t page = split_.Page(granule);
    const uint32_t in_page = granule - page * split_.granules;
    EXPECT_EQ(granule % tile_granules, 0u);
    EXPECT_LE(in_page + tile_granules, split_.granules);
    return size_t{page} * page_bytes_ + size_t{in_page} * kGranule + within;
  }
  uint16_t Take(size_t byte) {
    EXPECT_LE(byte + 2, layout_.image_bytes);
    EXPECT_FALSE(found_[byte / 2]);
    found_[byte / 2] = true;
    uint16_t value = 0;
    std::memcpy(&value, bytes_.data() + byte, 2);
    return value;
  }
  ModuleRecord Record(uint32_t site, uint32_t ordinal) {
    const uint64_t offset = RecordOffset(site, layout_.site_modules, ordinal);
    EXPECT_EQ(offset / page_bytes_, (offset + sizeof(ModuleRecord) - 1) / page_bytes_);
    ModuleRecord record;
    std::memcpy(&record, bytes_.data() + offset, sizeof(record));
    for (size_t i = 0; i < sizeof(record) / 2; ++i) found_[offset / 2 + i] = true;
    return record;
  }
  // What no Take or Record has touched is zero.
  void ExpectNothingElse() const {
    for (size_t i = 0; i < found_.size(); ++i) {
      uint16_t value = 0;
      std::memcpy(&value, bytes_.data() + 2 * i, 2);
      if (found_[i]) continue;
      ASSERT_EQ(value, 0) << "byte " << 2 * i;
    }
  }

 private:
  const size_t page_bytes_;
  const PageSplit split_;
  std::vector<LowRankFactors> factors_;
  AdapterLayout layout_;
  std::vector<std::byte> bytes_;
  std::vector<bool> found_;
};

void ExpectEveryElementOnce(const std::vector<Module>& modules, uint32_t sites, size_t page_bytes) {
  Image image(modules, sites, page_bytes);
  for (const Module& m : modules) {
    const auto at = image.layout().At(m.site);
    const auto planned = std::ranges::find(at, m.out_begin, &AdapterModule::out_begin);
    ASSERT_NE(planned, at.end());
    const ModuleRecord record = image.Record(m.site, uint32_t(planned - at.begin()));
    EXPECT_EQ(record.rank, uint32_t(m.rank));
    EXPECT_EQ(record.out_begin, m.out_begin);
    EXPECT_EQ(record.out_cols, uint32_t(m.out_cols));
    EXPECT_EQ(record.scale, 0.5f + float(m.out_begin));
    EXPECT_EQ(uint64_t{record.b} * kGranule, planned->b.offset);
    EXPECT_EQ(uint64_t{record.a + record.first_tile * kATileGranules} * kGranule,
              planned->a.offset);
    for (int rank = 0; rank < m.rank; ++rank) {
      for (int input = 0; input < m.d_in; ++input) {
        const uint32_t tile = ATile(record.a, record.site_tiles, uint32_t(input) / kTileInputs,
                                    record.first_tile + uint32_t(rank) / kTileRanks);
        const uint32_t within =
            2 * AElement(uint32_t(rank) % kTileRanks, uint32_t(input) % kTileInputs);
        ASSERT_EQ(image.Take(image.Byte(tile, kATileGranules, within)),
                  m.a[size_t(rank) * size_t(m.d_in) + size_t(input)]);
      }
    }
    for (int output = 0; output < m.out_cols; ++output) {
      for (int rank = 0; rank < m.rank; ++rank) {
        const uint32_t tile = BTile(record.b, RankTiles(record.rank),
                                    uint32_t(output) / kTileOutputs, uint32_t(rank) / kTileRanks);
        const uint32_t within =
            2 * BElement(uint32_t(output) % kTileOutputs, uint32_t(rank) % kTileRanks);
        ASSERT_EQ(image.Take(image.Byte(tile, kBTileGranules, within)),
                  m.b[size_t(output) * size_t(m.rank) + size_t(rank)]);
      }
    }
  }
  image.ExpectNothingElse();
}

TEST(AdapterImageTest, EveryRankAndShapeIsFoundInPagesOfEverySize) {
  const size_t page_sizes[] = {4096, 12288, 65536};
  const int widths[] = {1, 63, 64, 65, 130};
  for (int rank = 1; rank <= 256; ++rank) {
    const int d_in = widths[rank % 5], out_cols = widths[rank / 5 % 5];
    for (const size_t page_bytes : page_sizes) {
      SCOPED_TRACE(testing::Message()
                   << rank << " " << d_in << " " << out_cols << " " << page_bytes);
      ExpectEveryElementOnce({{1, 7, rank, d_in, out_cols}}, 3, page_bytes);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(AdapterImageTest, ModulesOfASiteShareItsTiles) {
  for (const size_t page_bytes : {size_t{4096}, size_t{12288}, size_t{65536}}) {
    ExpectEveryElementOnce({{2, 500, 20, 200, 70},
                            {0, 0, 8, 64, 32},
                            {2, 0, 4, 200, 100},
                            {2, 130, 64, 150, 65},
                            {40, 3, 1, 1, 1},
                            {7, 0, 33, 300, 31},
                            {7, 31, 33, 300, 31}},
                           129, page_bytes);
  }
}

TEST(AdapterImageTest, SitesFollowEachOtherBehindTheDirectory) {
  const std::vector<Module> modules = {
      {2, 64, 9, 100, 40}, {0, 0, 16, 64, 64}, {2, 0, 3, 100, 64}, {3, 0, 8, 64, 32}};
  const Image image(modules, 5, 4096);
  const AdapterLayout& layout = image.layout();
  EXPECT_EQ(layout.site_modules, 2u);
  // 5 * 2 records of 32 bytes make a granule; a site of A tiles begins on a multiple of 1 KiB.
  EXPECT_EQ(layout.At(0)[0].a.offset, 1024u);
  EXPECT_EQ(layout.At(0)[0].a.rows, 2u);
  EXPECT_EQ(layout.At(0)[0].b.offset, 1024u + 2 * 1024);
  EXPECT_EQ(layout.At(0)[0].b.rows, 2u * 2);
  // A: 2 k tiles of 1 + 2 rank tiles. B: 2 groups of one rank tile, then 2 groups of two.
  EXPECT_EQ(layout.At(2)[0].a.offset, 5120u);
  EXPECT_EQ(layout.At(2)[1].a.offset, 6144u);
  EXPECT_EQ(layout.At(2)[0].b.offset, 5120u + 6 * 1024);
  EXPECT_EQ(layout.At(2)[1].b.offset, 5120u + 6 * 1024 + 1024);
  EXPECT_EQ(layout.At(3)[0].a.offset, 14336u);
  EXPECT_EQ(layout.image_bytes, 14336u + 1024 + 512);
  EXPECT_EQ(layout.pages, 4u);
  EXPECT_TRUE(layout.At(1).empty());
  EXPECT_EQ(layout.site_begin, (std::vector<uint32_t>{0, 1, 1, 3, 4, 4}));
}

TEST(AdapterImageTest, SitesWithEqualModulesAreKnown) {
  const std::vector<Module> modules = {{0, 0, 8, 64, 32},  {1, 0, 8, 64, 33}, {2, 0, 8, 64, 32},
                                       {3, 0, 9, 64, 32},  {4, 0, 8, 65, 32}, {5, 0, 8, 64, 32},
                                       {5, 32, 8, 64, 32}, {7, 0, 8, 64, 32}, {7, 40, 8, 64, 32}};
  const Image image(modules, 9, 4096);
  EXPECT_EQ(image.layout().site_shape, (std::vector<uint32_t>{0, 1, 0, 3, 4, 5, 6, 7, 6}));
}

TEST(AdapterImageTest, ReadsEveryElementType) {
  const std::vector<float> a = {1.0f, -2.0f, 0.5f, 3.0f};
  const std::vector<uint16_t> b = {0x3c00, 0xc000, 0x0001};  // fp16: 1, -2, 2^-24
  LowRankFactors f{.site = 0};
  f.a = {DType::kF32, a.data(), 1, 4};
  f.b = {DType::kF16, b.data(), 3, 1};
  const AdapterLayout layout = PlanAdapterImage({&f, 1}, 1, 4096);
  std::vector<std::byte> image(layout.pages * size_t{4096});
  PackAdapterImage(layout, {&f, 1}, 4096, image);
  const auto at = [&](uint64_t byte) {
    uint16_t value = 0;
    std::memcpy(&value, image.data() + byte, 2);
    return value;
  };
  const AdapterModule& m = layout.modules[0];
  EXPECT_EQ(at(m.a.offset), 0x3f80);
  EXPECT_EQ(at(m.a.offset + 2), 0xc000);
  EXPECT_EQ(at(m.b.offset + 2 * BElement(0, 0)), 0x3f80);
  EXPECT_EQ(at(m.b.offset + 2 * BElement(1, 0)), 0xc000);
  EXPECT_EQ(at(m.b.offset + 2 * BElement(2, 0)), 0x3380);
}

TEST(AdapterImageTest, NoModulesNeedNoPages) {
  const AdapterLayout layout = PlanAdapterImage({}, 4, 4096);
  EXPECT_EQ(layout.image_bytes, 0u);
  EXPECT_EQ(layout.pages, 0u);
  EXPECT_TRUE(layout.At(3).empty());
  PackAdapterImage(layout, {}, 4096, {});
}

TEST(AdapterImageTest, ShapesThatNoMemoryHoldsAskForAllOfIt) {
  constexpr int64_t kHuge = std::numeric_limits<int32_t>::max();
  LowRankFactors f{.site = 0};
  f.a = {DType::kBF16, nullptr, 4096, 1 << 20};
  f.b = {DType::kBF16, nullptr, 1 << 20, 4096};
  AdapterLayout layout = PlanAdapterImage({&f, 1}, 1, 4096);
  // 4096 * 2^20 * 2 bytes, twice, and the directory.
  EXPECT_EQ(layout.image_bytes, (uint64_t{1} << 34) + 1024);
  EXPECT_EQ(layout.pages, (uint64_t{1} << 22) + 1);

  std::vector<LowRankFactors> many;
  for (uint32_t site = 0; site < 100; ++site) {
    LowRankFactors g{.site = site};
    g.a = {DType::kBF16, nullptr, kHuge, kHuge};
    g.b = {DType::kBF16, nullptr, kHuge, kHuge};
    many.push_back(g);
  }
  layout = PlanAdapterImage(many, 100, 4096);
  EXPECT_EQ(layout.pages, std::numeric_limits<uint32_t>::max());
  EXPECT_GE(layout.image_bytes, uint64_t{1} << 63);
}

}  // namespace
}  // namespace lorad::kernels::cuda

// The matrix-tile kernels on tiles of plain C++, so that they are tested on machines that have
// none. The table joins the tests of cpu_gemm_test.cc; here is only what is particular to tiles.
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/amx_adapter_inl.h"
#include "kernels/cpu/amx_gemm_inl.h"
#include "kernels/cpu/bf16.h"
#include "tests/unit/kernels/cpu/kernel_cases.h"

namespace lorad::kernels::cpu {
namespace {

// tdpbf16ps as its manual writes it: for each output, the even and the odd products of the tile are
// summed apart in fp32 with one rounding a step, their sum is added to the accumulator, denormals
// count as zero. What the silicon does inside a sum may differ in the last place; nothing here
// depends on it. Rows that are not configured must not be read, written or used.
struct EmulatedTiles {
  struct Tile {
    TileShape shape;
    std::array<std::array<std::byte, 64>, 16> bytes;
  };
  static inline std::array<Tile, 8> tiles;
  static inline bool configured = false;
  static inline int configurations = 0;

  static void Configure(const TileShape (&shapes)[8]) {
    for (size_t t = 0; t < 8; ++t) {
      ASSERT_TRUE(shapes[t].rows >= 1 && shapes[t].rows <= 16);
      ASSERT_TRUE(shapes[t].row_bytes >= 4 && shapes[t].row_bytes <= 64 &&
                  shapes[t].row_bytes % 4 == 0);
      tiles[t].shape = shapes[t];
      for (auto& row : tiles[t].bytes) row.fill(std::byte{0xff});  // NaN, until it is loaded
    }
    configured = true;
    ++configurations;
  }
  static void Release() { configured = false; }
  template <int t>
  static void Zero() {
    ASSERT_TRUE(configured);
    for (auto& row : tiles[t].bytes) row.fill(std::byte{0});
  }
  template <int t>
  static void Load(const void* p, int64_t stride_bytes) {
    ASSERT_TRUE(configured);
    for (int r = 0; r < tiles[t].shape.rows; ++r) {
      std::memcpy(tiles[t].bytes[size_t(r)].data(),
                  static_cast<const std::byte*>(p) + r * stride_bytes,
                  size_t(tiles[t].shape.row_bytes));
    }
  }
  template <int t>
  static void Store(void* p, int64_t stride_bytes) {
    ASSERT_TRUE(configured);
    for (int r = 0; r < tiles[t].shape.rows; ++r) {
      std::memcpy(static_cast<std::byte*>(p) + r * stride_bytes, tiles[t].bytes[size_t(r)].data(),
                  size_t(tiles[t].shape.row_bytes));
    }
  }
  template <int c, int a, int b>
  static void Dot() {
    // What the instruction demands, or it faults.
    ASSERT_TRUE(configured && tiles[c].shape.rows == tiles[a].shape.rows);
    ASSERT_TRUE(tiles[c].shape.row_bytes == tiles[b].shape.row_bytes);
    ASSERT_TRUE(tiles[a].shape.row_bytes == 4 * tiles[b].shape.rows);
    const auto bf16 = [](const Tile& tile, int row, int i) {
      uint16_t bits;
      std::memcpy(&bits, tile.bytes[size_t(row)].data() + 2 * i, 2);
      const float value = FloatOfBf16(bits);
      return std::fpclassify(value) == FP_SUBNORMAL ? 0.0f : value;
    };
    for (int m = 0; m < tiles[c].shape.rows; ++m) {
      for (int n = 0; n < tiles[c].shape.row_bytes / 4; ++n) {
        float even = 0, odd = 0;
        for (int k = 0; k < tiles[b].shape.rows; ++k) {
          even = std::fma(bf16(tiles[a], m, 2 * k), bf16(tiles[b], k, 2 * n), even);
          odd = std::fma(bf16(tiles[a], m, 2 * k + 1), bf16(tiles[b], k, 2 * n + 1), odd);
        }
        float sum;
        std::byte* at = tiles[c].bytes[size_t(m)].data() + 4 * n;
        std::memcpy(&sum, at, 4);
        sum += even + odd;
        std::memcpy(at, &sum, 4);
      }
    }
  }
};

void ConvertToBf16(const ConvertTask& task) {
  auto* out = static_cast<uint16_t*>(task.out);
  for (int i = 0; i < task.n; ++i) out[i] = Bf16OfFloat(task.x[i]);
  for (int i = task.n; i < task.padded; ++i) out[i] = 0;
}

}  // namespace

const KernelTable* EmulatedAmxKernels() {
  static const KernelTable table = [] {
    KernelTable t = {};
    t.name = "amx_emulated";
    t.bf16_activations = true;
    t.gemm_rows = kAmxTaskRows;
    t.gemm_panels = kAmxPanels;
    t.gemm_scratch_floats = kAmxScratchFloats;
    t.tile_order = TileOrder::kPairMajor;
    t.gemm = TileGemm<EmulatedTiles>;
    t.shrink = TileShrink<EmulatedTiles>;
    t.expand = PortableKernels()->expand;
    t.convert = ConvertToBf16;
    return t;
  }();
  return &table;
}

namespace {

TEST(AmxGemm, ReleasesItsTilesAndConfiguresOnceForRowsOfOneSize) {
  const Layer layer = MakeLayer(32, 2048, false);
  const auto x = Values(3, 64 * int64_t{layer.inputs});
  EmulatedTiles::configurations = 0;
  RunGemm(*EmulatedAmxKernels(), layer, x, 64, {2, 64});
  EXPECT_FALSE(EmulatedTiles::configured);
  EXPECT_EQ(EmulatedTiles::configurations, 1);
}

}  // namespace
}  // namespace lorad::kernels::cpu

// Kernels for Intel's matrix tiles: GEMM and shrink on tdpbf16ps, the rest as on AVX-512 with bf16.
#include "kernels/cpu/amx_adapter_inl.h"
#include "kernels/cpu/amx_gemm_inl.h"
#include "kernels/cpu/isa_table_inl.h"

namespace lorad::kernels::cpu {
namespace {

struct AmxTiles {
  struct alignas(64) Config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static void Configure(const TileShape (&shapes)[8]) {
    Config config = {};
    config.palette = 1;
    for (int t = 0; t < 8; ++t) {
      config.row_bytes[t] = static_cast<uint16_t>(shapes[t].row_bytes);
      config.rows[t] = static_cast<uint8_t>(shapes[t].rows);
    }
    // Not _tile_loadconfig: GCC 12 tells the optimiser that it reads the first eight bytes only.
    asm volatile("ldtilecfg (%0)" ::"r"(&config) : "memory");
  }
  static void Release() { _tile_release(); }
  template <int t>
  static void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(t));
  }
  template <int t>
  static void Load(const void* p, int64_t stride_bytes) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(t), "r"(p), "r"(stride_bytes) : "memory");
  }
  template <int t>
  static void Store(void* p, int64_t stride_bytes) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(t), "r"(p), "r"(stride_bytes) : "memory");
  }
  template <int c, int a, int b>
  static void Dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
  }
};

constexpr KernelTable MakeAmxTable() {
  KernelTable table = MakeTable("amx");
  table.tile_order = TileOrder::kPairMajor;
  table.gemm = TileGemm<AmxTiles>;
  table.shrink = TileShrink<AmxTiles>;
  table.gemm_rows = kAmxTaskRows;
  table.gemm_panels = kAmxPanels;
  table.gemm_scratch_floats = kAmxScratchFloats;
  return table;
}

}  // namespace

const KernelTable* AmxKernels() {
  static constexpr KernelTable kTable = MakeAmxTable();
  return &kTable;
}

}  // namespace lorad::kernels::cpu

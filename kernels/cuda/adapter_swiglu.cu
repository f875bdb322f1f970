// SwiGLU that expands: out = silu(gate + dgate) * (up + dup), where dgate and dup are what a
// batch's adapters add, for all rows of a step.
//
// Expand by itself reads and writes gate and up once more, and at prefill they do not fit L2: 2048
// rows of 14336 ffn columns are 235 MB a layer, 70 us of an H100 where the layer's products take
// at least 940. Here they are read once, as SwiGLU must, and never written.
//
// As adapter_expand.cu, but an item has a range of ffn columns, for which a warp makes the groups
// of both modules, one after the other in one stream of B tiles. Rows without an adapter, and
// adapters with one of the two modules, are items with fewer modules. Sums are rounded to bf16
// where Expand would store them, so the bits are those of Expand and SwiGlu. v of both modules is
// staged for the block as a whole, so ranks are bounded (kSwiGluFewRanks, kSwiGluManyRanks): above
// them making v anew for each group would cost more than is saved.
#include <algorithm>
#include <vector>

#include "kernels/cuda/adapter_expand.cuh"
#include "kernels/cuda/adapter_tiles.cuh"
#include "kernels/cuda/swiglu.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocks = 4;   // a multiprocessor
constexpr int kColumns = 8;  // of a lane

// Of v, of each module: 16 ranks each.
constexpr int kFewPairs = kSwiGluFewRanks / 16;
constexpr int kManyPairs = kSwiGluManyRanks / 16;

struct SwiGluArgs {
  PagedImages images;
  const SegmentEntry* entries;
  const float* scratch;
  const uint16_t* gate_up;
  uint16_t* out;
  int gate_up_stride;
  int out_stride;
  int ffn;
  uint32_t site;
  ListView<SwiGluItem> items;
  int capacity;
};

// One of an item's two modules, or none.
LORAD_DEVICE Expansion ModuleOf(const SwiGluArgs& args, const SwiGluItem& item, int module,
                                int rank_tiles, int scratch) {
  Expansion e = {};
  if (rank_tiles == 0) return e;
  ExpandItem expand;
  expand.first_page = item.first_page;
  expand.rank_tiles = rank_tiles;
  expand.spans = item.spans;
  expand.rank_stride = item.rank_stride;
  expand.scratch = scratch;
  const ModuleRecord record = LoadRecord(args.images, uint32_t(item.first_page), args.site,
                                         uint32_t(item.site_modules), uint32_t(module));
  return ExpansionOf(expand, args.entries[item.segment], record, args.scratch);
}

// Columns column .. column + 7 of rows lane/4 and lane/4 + 8.
struct Columns {
  Vec4 gate[2];
  Vec4 up[2];
};

// Each warp has one row tile, and every kGroupStep-th group. v: of gate [kRowTiles][pairs][lanes],
// kModuleVectors further of up.
template <int kRowTiles, int kModuleVectors, int kAhead>
LORAD_DEVICE void ExpandSwiGlu(const SwiGluArgs& args, const SwiGluItem& item, Vec4* v) {
  constexpr int kGroupStep = kWarps / kRowTiles;
  const int first = Warp() % kRowTiles * 16;
  const int rows = item.rows - first;
  const Expansion all_gate =
      ModuleOf(args, item, item.gate_module, item.gate_tiles, item.gate_scratch);
  const Expansion all_up = ModuleOf(args, item, item.up_module, item.up_tiles, item.up_scratch);
  const Expansion gate = all_gate.From(first);
  const Expansion up = all_up.From(first);
  const int gate_pairs = gate.Pairs();
  const int up_pairs = up.Pairs();
  const int pairs = gate_pairs + up_pairs;

  int group = rows > 0 ? item.group_begin + Warp() / kRowTiles : item.group_end;
  BPair ahead[kAhead];
  int next_group = group, next_pair = 0;
  const auto fetch = [&](BPair& b) {
    if (next_group >= item.group_end || pairs == 0) return;
    Expansion of = gate;
    int pair = next_pair;
    if (pair >= gate_pairs) {
      of.first_page = up.first_page;
      of.b = up.b;
      of.rank_tiles = up.rank_tiles;
      pair -= gate_pairs;
    }
    FetchB<kRowTiles == 1>(args.images, of, next_group, pair, b);
    if (++next_pair == pairs) {
      next_pair = 0;
      next_group += kGroupStep;
    }
  };
  LORAD_UNROLL
  for (int i = 0; i < kAhead; ++i) fetch(ahead[i]);

  const int row = item.first_row + first + Lane() / 4;
  const auto read = [&](int of_group, Columns& c) {
    const int column = of_group * int{kTileOutputs} + Lane() % 4 * kColumns;
    if (of_group >= item.group_end || column >= args.ffn) return;
    LORAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      if (Lane() / 4 + half * 8 >= rows) continue;
      const uint16_t* at =
          args.gate_up + size_t(row + half * 8) * size_t(args.gate_up_stride) + size_t(column);
      c.gate[half] = Load16(at);
      c.up[half] = Load16(at + args.ffn);
    }
  };
  Columns columns;
  read(group, columns);

  if (pairs > 0) {
    SyncBlock();  // the v of before has been used
    StageV<kRowTiles, 4>(all_gate, 0, gate_pairs, v, Thread(), kThreads);
    StageV<kRowTiles, 4>(all_up, 0, up_pairs, v + kModuleVectors, Thread(), kThreads);
    SyncBlock();
  }
  const Vec4* v_gate = v + Warp() % kRowTiles * gate_pairs * kWarp + Lane();
  const Vec4* v_up = v + kModuleVectors + Warp() % kRowTiles * up_pairs * kWarp + Lane();

  float gate_sum[1][4][4] = {};
  float up_sum[1][4][4] = {};
  const auto write = [&] {
    const int column = group * int{kTileOutputs} + Lane() % 4 * kColumns;
    if (column >= args.ffn) return;
    LORAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      if (Lane() / 4 + half * 8 >= rows) continue;
      const Vec4 g = columns.gate[half], u = columns.up[half];
      uint32_t gates[4] = {g.x, g.y, g.z, g.w};
      uint32_t ups[4] = {u.x, u.y, u.z, u.w};
      LORAD_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float* dg = &gate_sum[0][i][half * 2];
        const float* du = &up_sum[0][i][half * 2];
        // Where there is no module nothing is added, not even zero: -0 stays.
        if (item.gate_tiles > 0) gates[i] = AddBf16(gates[i], dg[0], dg[1]);
        if (item.up_tiles > 0) ups[i] = AddBf16(ups[i], du[0], du[1]);
        gates[i] = PackBf16(SwiGluOf(LowBf16(gates[i]), LowBf16(ups[i])),
                            SwiGluOf(HighBf16(gates[i]), HighBf16(ups[i])));
      }
      Store16(args.out + size_t(row + half * 8) * size_t(args.out_stride) + size_t(column),
              {gates[0], gates[1], gates[2], gates[3]});
    }
  };

  int pair = 0;
  while (group < item.group_end) {
    LORAD_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (group >= item.group_end) break;
      if (pair < gate_pairs) {
        MultiplyStaged(v_gate + pair * kWarp, 0, ahead[i], gate_sum);
      } else if (pair < pairs) {
        MultiplyStaged(v_up + (pair - gate_pairs) * kWarp, 0, ahead[i], up_sum);
      }
      fetch(ahead[i]);
      if (++pair < pairs) continue;
      write();
      LORAD_UNROLL
      for (int j = 0; j < 16; ++j) gate_sum[0][j / 4][j % 4] = up_sum[0][j / 4][j % 4] = 0;
      pair = 0;
      group += kGroupStep;
      read(group, columns);
    }
  }
}

template <int kRowTiles, int kMostPairs, int kAhead>
LORAD_KERNEL(kThreads, kBlocks)
void AdapterSwiGlu(SwiGluArgs args) {
  constexpr int kModuleVectors = kRowTiles * kMostPairs * kWarp;
  LORAD_SHARED(Vec4[2 * kModuleVectors], v);
  for (int i = BlockX(); i < args.capacity; i += BlocksX()) {
    // Read beside the count, not after it.
    const SwiGluItem item = args.items.items[i];
    if (i >= *args.items.count) break;
    ExpandSwiGlu<kRowTiles, kModuleVectors, kAhead>(args, item, v);
  }
}

const KernelRef kSwiGluFewRows =
    MakeKernel("adapter_swiglu_few", &AdapterSwiGlu<1, kFewPairs, 4>, kThreads);
const KernelRef kSwiGluManyRows =
    MakeKernel("adapter_swiglu_many", &AdapterSwiGlu<4, kManyPairs, 2>, kThreads);

}  // namespace

void LaunchExpandSwiGlu(Launcher& launch, const DeviceFacts& device, const AdapterParams& params,
                        const TensorView& gate_up, const TensorView& out,
                        ListView<SwiGluItem> items, int capacity, bool many_rows) {
  LORAD_CHECK(!gate_up.full && !out.full && out.cols % kColumns == 0 &&
              gate_up.cols == 2 * out.cols);
  const SwiGluArgs args{.images = ImagesOf(params),
                        .entries = params.entries,
                        .scratch = params.scratch,
                        .gate_up = static_cast<const uint16_t*>(gate_up.data),
                        .out = static_cast<uint16_t*>(out.data),
                        .gate_up_stride = gate_up.stride,
                        .out_stride = out.stride,
                        .ffn = out.cols,
                        .site = params.site,
                        .items = items,
                        .capacity = capacity};
  launch(many_rows ? kSwiGluManyRows : kSwiGluFewRows,
         {.x = std::min(capacity, kBlocks * device.multiprocessors)}, args);
}

void AppendSwiGluKernels(std::vector<KernelRef>& kernels) {
  kernels.push_back(kSwiGluFewRows);
  kernels.push_back(kSwiGluManyRows);
}

}  // namespace lorad::kernels::cuda

// Expand: y += weight * scale * B v of every adapter of a batch.
//
// A block takes items of a list in device memory: a range of one module's outputs for one entry. It
// first makes v in shared memory as operands of the tensor cores (adapter_expand.cuh), while the
// first B tiles are on their way, then each warp takes every fourth group of 32 outputs. A lane's
// share of a group is eight neighbouring columns of a row, so y is read and written 16 bytes at a
// time.
// - Few (at most 16 rows): four pairs of B tiles in flight a warp, 4 KiB, 64 KiB a multiprocessor
//   of four blocks (half of that at rank 8). The limit is the weights' bytes; with few and small
//   adapters it is latency, about four dependent reads before the first tile.
// - Many (up to 64 rows): each B tile is used for four row tiles. The limit is reading and writing
//   y, 8 KiB a group of bf16, for which 4 KiB a warp are in flight.
#include <algorithm>
#include <vector>

#include "kernels/cuda/adapter_expand.cuh"
#include "kernels/cuda/adapter_tiles.cuh"

namespace lorad::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocks = 4;   // a multiprocessor
constexpr int kColumns = 8;  // of a lane

struct ExpandArgs {
  PagedImages images;
  const SegmentEntry* entries;
  const float* scratch;
  TensorView y;
  uint32_t site;
  ListView<ExpandItem> items;
  int capacity;
};

// Eight columns of a row of y as they lie in memory: 16 bytes of bf16 or 32 of fp32.
struct Columns {
  Vec4 first;
  Vec4 second;
};

// The part of y that a module adds to.
struct Target {
  TensorView y;
  int first_row;
  int rows;
  int out_begin;
  int out_cols;

  LORAD_DEVICE size_t At(int row, int column) const {
    return size_t(first_row + row) * size_t(y.stride) + size_t(out_begin + column);
  }
  // Whether a lane's columns are there as a whole and aligned; the same for all rows.
  LORAD_DEVICE bool IsWhole(int column) const {
    return out_begin % kColumns == 0 && column + kColumns <= out_cols;
  }
};

template <bool kFull>
LORAD_DEVICE Columns Read(const Target& target, int row, int column) {
  Columns c;
  if constexpr (kFull) {
    const float* at = static_cast<const float*>(target.y.data) + target.At(row, column);
    c.first = Load16(at);
    c.second = Load16(at + 4);
  } else {
    c.first = Load16(static_cast<const uint16_t*>(target.y.data) + target.At(row, column));
    c.second = {};
  }
  return c;
}

LORAD_DEVICE Vec4 AddFloats(Vec4 v, float a, float b, float c, float d) {
  return {FloatToBits(BitsToFloat(v.x) + a), FloatToBits(BitsToFloat(v.y) + b),
          FloatToBits(BitsToFloat(v.z) + c), FloatToBits(BitsToFloat(v.w) + d)};
}

template <bool kFull>
LORAD_DEVICE void Write(const Target& target, int row, int column, const Columns& before,
                        const float (&sum)[4][4], int half) {
  const int h = half * 2;
  if constexpr (kFull) {
    float* at = static_cast<float*>(target.y.data) + target.At(row, column);
    Store16(at, AddFloats(before.first, sum[0][h], sum[0][h + 1], sum[1][h], sum[1][h + 1]));
    Store16(at + 4, AddFloats(before.second, sum[2][h], sum[2][h + 1], sum[3][h], sum[3][h + 1]));
  } else {
    Store16(static_cast<uint16_t*>(target.y.data) + target.At(row, column),
            {AddBf16(before.first.x, sum[0][h], sum[0][h + 1]),
             AddBf16(before.first.y, sum[1][h], sum[1][h + 1]),
             AddBf16(before.first.z, sum[2][h], sum[2][h + 1]),
             AddBf16(before.first.w, sum[3][h], sum[3][h + 1])});
  }
}

// One column after the other: at the end of a module, or where it is not aligned.
template <bool kFull>
LORAD_DEVICE void AddOneByOne(const Target& target, int row, int column, const float (&sum)[4][4],
                              int half) {
  LORAD_UNROLL
  for (int i = 0; i < kColumns; ++i) {
    if (column + i >= target.out_cols) continue;
    const size_t at = target.At(row, column + i);
    if constexpr (kFull) {
      static_cast<float*>(target.y.data)[at] += SumAt(sum, half, i);
    } else {
      uint16_t& y = static_cast<uint16_t*>(target.y.data)[at];
      y = ToBf16(FromBf16(y) + SumAt(sum, half, i));
    }
  }
}

// Adds the sums of one group. kBatch row tiles of y are on their way together.
template <int kRowTiles, int kBatch, bool kFull>
LORAD_DEVICE void AddGroup(const Target& target, int group, const float (&sum)[kRowTiles][4][4]) {
  const int column = group * int{kTileOutputs} + Lane() % 4 * kColumns;
  if (target.IsWhole(column)) {
    LORAD_UNROLL
    for (int m = 0; m < kRowTiles; m += kBatch) {
      Columns before[kBatch][2];
      LORAD_UNROLL
      for (int i = 0; i < kBatch * 2; ++i) {
        const int row = (m + i / 2) * 16 + i % 2 * 8 + Lane() / 4;
        if (row < target.rows) before[i / 2][i % 2] = Read<kFull>(target, row, column);
      }
      LORAD_UNROLL
      for (int i = 0; i < kBatch * 2; ++i) {
        const int row = (m + i / 2) * 16 + i % 2 * 8 + Lane() / 4;
        if (row < target.rows) {
          Write<kFull>(target, row, column, before[i / 2][i % 2], sum[m + i / 2], i % 2);
        }
      }
    }
    return;
  }
  LORAD_UNROLL
  for (int i = 0; i < kRowTiles * 2; ++i) {
    const int row = i * 8 + Lane() / 4;
    if (row < target.rows) AddOneByOne<kFull>(target, row, column, sum[i / 2], i % 2);
  }
}

// One item. A warp has kOfWarp of the block's kRowTiles row tiles; kAhead pairs of B tiles are on
// their way.
template <int kRowTiles, int kOfWarp, int kAhead>
LORAD_DEVICE void ExpandOne(const ExpandArgs& args, const ExpandItem& item, Vec4* v) {
  constexpr int kShares = kRowTiles / kOfWarp;  // of rows
  constexpr int kGroupStep = kWarps / kShares;
  const SegmentEntry entry = args.entries[item.segment];
  const ModuleRecord record = LoadRecord(args.images, uint32_t(item.first_page), args.site,
                                         uint32_t(item.site_modules), uint32_t(item.module));
  const Expansion all = ExpansionOf(item, entry, record, args.scratch);
  const int share = Warp() % kShares;
  const Expansion e = all.From(share * kOfWarp * 16);
  const Target target{args.y, entry.first_row + share * kOfWarp * 16, e.rows, int(record.out_begin),
                      int(record.out_cols)};
  const int pairs = e.Pairs();
  const Vec4* staged = v + share * kOfWarp * e.Staged() * kWarp;
  Vec4* own = v + (kRowTiles * kStagedPairs + Warp() * kOfWarp) * kWarp;
  // A warp without rows has no groups.
  const int first = item.group_begin + Warp() / kShares;
  int group = e.rows > 0 ? first : item.group_end;

  BPair ahead[kAhead];
  int next_group = group, next_pair = 0;
  const auto fetch = [&](BPair& b) {
    if (next_group >= item.group_end) return;
    FetchB<kShares == 1>(args.images, e, next_group, next_pair, b);
    if (++next_pair == pairs) {
      next_pair = 0;
      next_group += kGroupStep;
    }
  };
  LORAD_UNROLL
  for (int i = 0; i < kAhead; ++i) fetch(ahead[i]);

  SyncBlock();  // the v of before has been used
  StageV<kRowTiles, 8>(all, 0, all.Staged(), v, Thread(), kThreads);
  SyncBlock();

  int pair = 0;
  float sum[kOfWarp][4][4] = {};
  while (group < item.group_end) {
    LORAD_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (group >= item.group_end) break;
      MultiplyPair<kOfWarp>(e, staged, own, pair, ahead[i], sum);
      fetch(ahead[i]);
      if (++pair < pairs) continue;
      if (args.y.full) {
        AddGroup<kOfWarp, 1, true>(target, group, sum);
      } else {
        AddGroup<kOfWarp, 1, false>(target, group, sum);
      }
      LORAD_UNROLL
      for (int j = 0; j < kOfWarp * 16; ++j) sum[j / 16][j / 4 % 4][j % 4] = 0;
      pair = 0;
      group += kGroupStep;
    }
  }
}

template <int kRowTiles, int kOfWarp, int kAhead>
LORAD_KERNEL(kThreads, kBlocks)
void Expand(ExpandArgs args) {
  LORAD_SHARED(Vec4[StagedVectors(kRowTiles, kOfWarp, kWarps)], v);
  for (int i = BlockX(); i < args.capacity; i += BlocksX()) {
    // Read beside the count, not after it.
    const ExpandItem item = args.items.items[i];
    if (i >= *args.items.count) break;
    ExpandOne<kRowTiles, kOfWarp, kAhead>(args, item, v);
  }
}

const KernelRef kExpandFewRows = MakeKernel("adapter_expand_few", &Expand<1, 1, 4>, kThreads);
const KernelRef kExpandManyRows = MakeKernel("adapter_expand_many", &Expand<4, 2, 2>, kThreads);

}  // namespace

void LaunchExpand(Launcher& launch, const DeviceFacts& device, const AdapterParams& params,
                  const TensorView& y, ListView<ExpandItem> items, int capacity, bool many_rows) {
  const ExpandArgs args{.images = ImagesOf(params),
                        .entries = params.entries,
                        .scratch = params.scratch,
                        .y = y,
                        .site = params.site,
                        .items = items,
                        .capacity = capacity};
  launch(many_rows ? kExpandManyRows : kExpandFewRows,
         {.x = std::min(capacity, kBlocks * device.multiprocessors)}, args);
}

std::vector<KernelRef> AdapterKernels() {
  std::vector<KernelRef> kernels = {kExpandFewRows, kExpandManyRows};
  AppendShrinkKernels(kernels);
  AppendSwiGluKernels(kernels);
  return kernels;
}

}  // namespace lorad::kernels::cuda

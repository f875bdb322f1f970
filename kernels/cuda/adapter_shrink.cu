// Shrink: v = A x of every adapter of a batch, heterogeneous ranks.
//
// A block takes items of a list in device memory, one after another: some rank tiles and spans of
// one entry. Weights go from pages to registers as operands of the tensor cores, no shared memory
// between: an A tile is two loads of a warp, each 512 consecutive bytes, and x is loaded in the
// same permuted order (adapter_index.h). Loads run kStages half tiles ahead of the products, also
// from span to span.
// - Few (at most 16 rows, decode): the four warps take the four quarters of a span, 256 inputs
//   each; their sums are added in order by way of shared memory. 4 to 6 KiB of weights in flight a
//   warp, 64 to 96 KiB a multiprocessor of four blocks; a memory of 4.8 TB/s and 0.8 us asks for 29
//   on each of 132. At most 6 rank tiles an item, so that q, k and v of rank 16 read x once.
//   The limit is the weights' bytes; with few and small adapters it is latency, about four
//   dependent reads (item, page, record, page) and the first tile.
// - Many (up to 64 rows, prefill): a warp has 16 rows to itself and walks the quarters, adding them
//   in the same order. Weights are read by all four warps, from L1 but for the first. The limit is
//   reading x from L2 once for every 6 rank tiles.
// Both write one partial sum a span and value, so the result has the same bits, and Expand need not
// know.
#include <algorithm>
#include <vector>

#include "kernels/cuda/adapter_tiles.cuh"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocks = 4;  // a multiprocessor
constexpr int kMostTiles = 6;
constexpr int kFewRows = 16;
static_assert(kWarps == int{kSpanTiles / kQuarterTiles});

struct ShrinkArgs {
  PagedImages images;
  const SegmentEntry* entries;
  float* scratch;
  const uint16_t* x;
  int x_stride;
  uint32_t site;
  ListView<ShrinkItem> items;
  int capacity;
};

// The products of 16 rows (those of them that are there) with kTiles rank tiles, a quarter at a
// time. Weights are loaded kAhead k tiles before their products; x, which comes from L2, kXAhead.
template <int kTiles, int kAhead, int kXAhead, bool kOnce>
class QuarterStream {
  static_assert(int{kQuarterTiles} % kAhead == 0 && kAhead % kXAhead == 0);

 public:
  // Of `rows` rows from `first_row` on.
  LORAD_DEVICE QuarterStream(const ShrinkArgs& args, const ShrinkItem& item, uint32_t a,
                             int first_row, int rows)
      : args_(args),
        first_page_(uint32_t(item.first_page)),
        first_(ATile(a, 0, 0, uint32_t(item.tile_begin))),
        site_tiles_(uint32_t(item.site_tiles)),
        tiles_(item.tile_end - item.tile_begin),
        k_tiles_(item.k_tiles),
        upper_(uint32_t(first_row + Lane() / 4) * uint32_t(args.x_stride) +
               uint32_t(Lane()) % 4 * 8),
        rows_here_((Lane() / 4 < rows ? 1 : 0) + (Lane() / 4 + 8 < rows ? 1 : 0)) {}

  LORAD_DEVICE void Start(int quarter) {
    LORAD_UNROLL
    for (int i = 0; i < kAhead; ++i) FetchWeights(i, quarter * int{kQuarterTiles} + i);
    LORAD_UNROLL
    for (int i = 0; i < kXAhead; ++i) FetchX(i, quarter * int{kQuarterTiles} + i);
  }

  // Adds quarter `quarter` to sum; the start of quarter `next` is under way then.
  LORAD_DEVICE void Run(int quarter, int next, float (&sum)[kTiles][4]) {
    LORAD_ROLLED
    for (int begin = 0; begin < int{kQuarterTiles}; begin += kAhead) {
      // These k tiles, and those to load meanwhile.
      const int here = quarter * int{kQuarterTiles} + begin;
      const int behind =
          begin + kAhead < int{kQuarterTiles} ? here + kAhead : next * int{kQuarterTiles};
      LORAD_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        if (here + i < k_tiles_) Multiply(i, sum);
        FetchWeights(i, behind + i);
        const int ahead = i + kXAhead;
        FetchX(ahead, ahead < kAhead ? here + ahead : behind + ahead - kAhead);
      }
    }
  }

 private:
  struct Half {
    Vec4 upper;  // row lane/4 of x
    Vec4 lower;  // row lane/4 + 8
  };

  LORAD_DEVICE void Multiply(int stage, float (&sum)[kTiles][4]) {
    LORAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const Half& x = x_of_[stage % kXAhead][half];
      LORAD_UNROLL
      for (int i = 0; i < kTiles; ++i) {
        const Vec4& w = weights_[stage][i][half];
        Mma16816(sum[i], {x.upper.x, x.lower.x, x.upper.y, x.lower.y}, w.x, w.y);
        Mma16816(sum[i], {x.upper.z, x.lower.z, x.upper.w, x.lower.w}, w.z, w.w);
      }
    }
  }

  LORAD_DEVICE void FetchWeights(int stage, int k) {
    if (k >= k_tiles_) return;
    const uint32_t first = ATile(first_, site_tiles_, uint32_t(k), 0);
    LORAD_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      if (i >= tiles_) continue;
      Vec4(&w)[2] = weights_[stage][i];
      const std::byte* at =
          GranuleAt(args_.images, first_page_, first + uint32_t(i) * kATileGranules) + Lane() * 16;
      w[0] = kOnce ? LoadOnce16(at) : LoadAgain16(at);
      w[1] = kOnce ? LoadOnce16(at + kGranule) : LoadAgain16(at + kGranule);
    }
  }

  LORAD_DEVICE void FetchX(int stage, int k) {
    if (k >= k_tiles_) return;
    const uint16_t* upper = args_.x + (upper_ + uint32_t(k) * kTileInputs);
    const uint16_t* lower = upper + 8 * size_t(args_.x_stride);
    Half(&x)[2] = x_of_[stage % kXAhead];
    if (rows_here_ > 0) {
      x[0].upper = LoadAgain16(upper);
      x[1].upper = LoadAgain16(upper + 32);
    }
    if (rows_here_ > 1) {
      x[0].lower = LoadAgain16(lower);
      x[1].lower = LoadAgain16(lower + 32);
    }
  }

  const ShrinkArgs& args_;
  const uint32_t first_page_;
  const uint32_t first_;  // granule of the first rank tile
  const uint32_t site_tiles_;
  const int tiles_;
  const int k_tiles_;
  const uint32_t upper_;  // of this lane in x, elements
  const int rows_here_;   // of this lane: lane/4, lane/4 + 8
  // Zeros where there is no tile or row.
  Vec4 weights_[kAhead][kTiles][2] = {};
  Half x_of_[kXAhead][2] = {};
};

struct Work {
  const ShrinkArgs& args;
  const ShrinkItem& item;
  SegmentEntry entry;
  uint32_t a;

  // The partial sums of a span and row: the item's first rank.
  LORAD_DEVICE float* Partial(int span, int row) const {
    const size_t ranks = size_t(item.site_tiles) * kTileRanks;
    return args.scratch + size_t(item.scratch) +
           (size_t(span) * size_t(entry.rows) + size_t(row)) * ranks +
           size_t(item.tile_begin) * kTileRanks;
  }
};

// The sums of the four warps, [warp][row][rank]. Rows are 8 words apart modulo 32 or 24, so that
// the stores of a fragment meet no bank twice.
LORAD_HOST_DEVICE constexpr int RowFloats(int tiles) { return (tiles + (tiles + 1) % 2) * 8; }
constexpr int kSharedFloats = kWarps * kFewRows * RowFloats(kMostTiles);

template <int kTiles, int kAhead, int kXAhead>
LORAD_DEVICE void ShrinkFew(const Work& work, float* shared) {
  constexpr int kRow = RowFloats(kTiles);
  constexpr int kRanks = kTiles * int{kTileRanks};
  const int rows = work.entry.rows;
  const int ranks = (work.item.tile_end - work.item.tile_begin) * int{kTileRanks};
  QuarterStream<kTiles, kAhead, kXAhead, /*kOnce=*/true> stream(work.args, work.item, work.a,
                                                                work.entry.first_row, rows);
  stream.Start(work.item.span_begin * kWarps + Warp());
  for (int span = work.item.span_begin; span < work.item.span_end; ++span) {
    const int quarter = span * kWarps + Warp();
    // Behind the last quarter there are no tiles, so nothing is read.
    const int next = span + 1 < work.item.span_end ? quarter + kWarps : work.item.k_tiles;
    float sum[kTiles][4] = {};
    stream.Run(quarter, next, sum);

    SyncBlock();  // the sums of before have been read
    float* mine = shared + Warp() * kFewRows * kRow + Lane() / 4 * kRow + Lane() % 4 * 2;
    LORAD_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      LORAD_UNROLL
      for (int j = 0; j < 4; ++j) {
        mine[j / 2 * 8 * kRow + i * int{kTileRanks} + j % 2] = sum[i][j];
      }
    }
    SyncBlock();
    LORAD_ROLLED
    for (int at = Thread(); at < rows * kRanks; at += kThreads) {
      const int row = at / kRanks, rank = at % kRanks;
      if (rank >= ranks) continue;
      float total = shared[row * kRow + rank];
      LORAD_UNROLL
      for (int warp = 1; warp < kWarps; ++warp) {
        total += shared[(warp * kFewRows + row) * kRow + rank];
      }
      work.Partial(span, row)[rank] = total;
    }
  }
}

// The sum over a span's quarters so far stays in shared memory, each thread's its own: registers
// are for loads.
constexpr int kManyFloats = kMostTiles * 4 * kThreads;

template <int kTiles, int kAhead, int kXAhead>
LORAD_DEVICE void ShrinkMany(const Work& work, float* shared) {
  const int first = Warp() * kFewRows;
  const int rows = work.entry.rows - first;
  if (rows <= 0) return;
  QuarterStream<kTiles, kAhead, kXAhead, /*kOnce=*/false> stream(
      work.args, work.item, work.a, work.entry.first_row + first, rows);
  const int end = work.item.span_end * kWarps;
  stream.Start(work.item.span_begin * kWarps);
  for (int span = work.item.span_begin; span < work.item.span_end; ++span) {
    LORAD_ROLLED
    for (int part = 0; part < kWarps; ++part) {
      const int quarter = span * kWarps + part;
      float sum[kTiles][4] = {};
      stream.Run(quarter, quarter + 1 < end ? quarter + 1 : work.item.k_tiles, sum);
      LORAD_UNROLL
      for (int i = 0; i < kTiles * 4; ++i) {
        float& total = shared[i * kThreads + Thread()];
        total = part == 0 ? sum[i / 4][i % 4] : total + sum[i / 4][i % 4];
      }
    }
    const int row = Lane() / 4;
    float* const upper = work.Partial(span, first + row) + Lane() % 4 * 2;
    float* const lower = upper + 8 * size_t(work.item.site_tiles) * kTileRanks;
    LORAD_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      if (work.item.tile_begin + i >= work.item.tile_end) break;
      LORAD_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (row + j / 2 * 8 >= rows) continue;
        float* const to = j < 2 ? upper : lower;
        to[i * int{kTileRanks} + j % 2] = shared[(i * 4 + j) * kThreads + Thread()];
      }
    }
  }
}

// Calls body<rank tiles, stages> for the item's tiles.
template <typename Body>
LORAD_DEVICE void ForEachItem(const ShrinkArgs& args, const Body& body) {
  for (int i = BlockX(); i < args.capacity; i += BlocksX()) {
    // Read beside the count, not after it.
    const ShrinkItem item = args.items.items[i];
    if (i >= *args.items.count) break;
    // All modules of a site have its A tiles in common.
    const ModuleRecord record = LoadRecord(args.images, uint32_t(item.first_page), args.site,
                                           uint32_t(item.site_modules), 0);
    body(Work{args, item, args.entries[item.segment], record.a});
  }
}

LORAD_KERNEL(kThreads, kBlocks) void ShrinkFewRows(ShrinkArgs args) {
  LORAD_SHARED(float[kSharedFloats], shared);
  ForEachItem(args, [&](const Work& work) {
    switch (work.item.tile_end - work.item.tile_begin) {
      case 1:
        return ShrinkFew<1, 4, 2>(work, shared);
      case 2:
        return ShrinkFew<2, 2, 2>(work, shared);
      case 3:
        return ShrinkFew<3, 2, 1>(work, shared);
      case 4:
        return ShrinkFew<4, 1, 1>(work, shared);
      default:
        return ShrinkFew<6, 1, 1>(work, shared);
    }
  });
}

LORAD_KERNEL(kThreads, kBlocks) void ShrinkManyRows(ShrinkArgs args) {
  LORAD_SHARED(float[kManyFloats], shared);
  ForEachItem(args, [&](const Work& work) {
    switch (work.item.tile_end - work.item.tile_begin) {
      case 1:
        return ShrinkMany<1, 4, 2>(work, shared);
      case 2:
        return ShrinkMany<2, 2, 2>(work, shared);
      case 3:
      case 4:
        return ShrinkMany<4, 1, 1>(work, shared);
      default:
        return ShrinkMany<6, 1, 1>(work, shared);
    }
  });
}

const KernelRef kShrinkFewRows = MakeKernel("adapter_shrink_few", &ShrinkFewRows, kThreads);
const KernelRef kShrinkManyRows = MakeKernel("adapter_shrink_many", &ShrinkManyRows, kThreads);

}  // namespace

void LaunchShrink(Launcher& launch, const DeviceFacts& device, const AdapterParams& params,
                  const TensorView& x, ListView<ShrinkItem> items, int capacity, bool many_rows) {
  LORAD_CHECK(!x.full);
  const ShrinkArgs args{.images = ImagesOf(params),
                        .entries = params.entries,
                        .scratch = params.scratch,
                        .x = static_cast<const uint16_t*>(x.data),
                        .x_stride = x.stride,
                        .site = params.site,
                        .items = items,
                        .capacity = capacity};
  launch(many_rows ? kShrinkManyRows : kShrinkFewRows,
         {.x = std::min(capacity, kBlocks * device.multiprocessors)}, args);
}

void AppendShrinkKernels(std::vector<KernelRef>& kernels) {
  kernels.push_back(kShrinkFewRows);
  kernels.push_back(kShrinkManyRows);
}

}  // namespace lorad::kernels::cuda

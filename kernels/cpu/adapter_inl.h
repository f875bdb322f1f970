// The two adapter kernels over images in the page pool: shrink t = A x and expand y += scale B t.
//
// An image is a sequence of 64-byte lines, which never straddle a page. A line of A is 32 inputs of
// one rank, a line of B 16 outputs of a pair of ranks. Both kernels walk the image in runs that lie
// within one page, looking the page up once a run.
//
// Reduction orders, fixed whatever the number of rows and wherever pages end:
// - shrink: one vector of accumulators a (row, rank), over k in steps of its width, then Sum();
// - expand: one accumulator a (row, output) over pairs of ranks in order, then y = scale *
// accumulator + y.
#pragma once

#include "kernels/cpu/gemm_inl.h"
#include "kernels/cpu/image_lines_inl.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace lorad::kernels::cpu {
namespace {

// acc + the products of 32 inputs of a rank with 32 inputs of a row, in lanes.
LORAD_SIMD_INLINE Vec AddLine(Vec acc, const uint16_t* a, const Element* x) {
  if constexpr (kDotNative) {
    return Dot(acc, LoadPairs(a), LoadPairs(reinterpret_cast<const uint16_t*>(x)));
  } else {
    const auto* xf = reinterpret_cast<const float*>(x);
#pragma GCC unroll 8
    for (int i = 0; i < kLineElements; i += kLanes) acc = Fma(LoadBf16(a + i), Load(xf + i), acc);
    return acc;
  }
}

constexpr int kShrinkRows = 16;   // rows that share one pass over A
constexpr int kShrinkTiles = 16;  // k blocks of A that stay in the cache meanwhile
constexpr int kShrinkAccumulators = kLanes == 16 ? 16 : 8;
constexpr int kShrinkAhead = 4096;  // bytes, when A is read once

// Accumulators of one group of ranks for kShrinkRows rows, in memory between blocks.
struct ShrinkSums {
  alignas(64) float lanes[kShrinkRows][kRankGroup][kLanes];
};

// Some k blocks of a group of ranks for some rows, done in passes over (rows, ranks) that registers
// hold.
struct ShrinkWork {
  ShrinkSums* sums;
  const uint16_t* a;  // [tiles][ranks][32]
  const Element* x;
  int64_t x_stride;
  int tiles;
  int rows;
  int ranks;
  int passes;
  int pass;
  int64_t ahead;  // elements from what is read to what is fetched
};

// Rows, and ranks for that many rows, that the next pass takes.
LORAD_SIMD_INLINE constexpr int PassRows(int left) { return left >= 4 ? 4 : left >= 2 ? 2 : 1; }
LORAD_SIMD_INLINE constexpr int PassRanks(int rows, int left) {
  return Smaller(kShrinkAccumulators / rows, left);
}

template <int kRows, int kRanks>
void ShrinkPass(ShrinkWork& work, int row, int rank) {
  float(*sums)[kRankGroup][kLanes] = work.sums->lanes + row;
  Vec acc[kRows][kRanks];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int j = 0; j < kRanks; ++j) acc[r][j] = Load(sums[r][rank + j]);
  }
  const int64_t tile_elements = int64_t{work.ranks} * kLineElements;
  const uint16_t* a = work.a + rank * kLineElements;
  const Element* x = work.x + row * work.x_stride;
  // Each pass fetches its share of what comes next, evenly.
  const int first_line = work.ranks * work.pass / work.passes;
  const int lines = work.ranks * (work.pass + 1) / work.passes - first_line;
  const uint16_t* ahead = work.a + work.ahead + first_line * kLineElements;
  for (int tile = 0; tile < work.tiles; ++tile) {
    for (int j = 0; j < lines; ++j) PrefetchSecond(ahead + j * kLineElements);
#pragma GCC unroll 16
    for (int j = 0; j < kRanks; ++j) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        acc[r][j] = AddLine(acc[r][j], a + j * kLineElements, x + r * work.x_stride);
      }
    }
    a += tile_elements;
    ahead += tile_elements;
    x += kBlockK;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int j = 0; j < kRanks; ++j) Store(sums[r][rank + j], acc[r][j]);
  }
  ++work.pass;
}

// A pass over exactly `ranks` ranks, at most kMost.
template <int kRows, int kMost>
void ShrinkExactly(ShrinkWork& work, int row, int rank, int ranks) {
  if constexpr (kMost > 1) {
    if (ranks < kMost) return ShrinkExactly<kRows, kMost - 1>(work, row, rank, ranks);
  }
  ShrinkPass<kRows, kMost>(work, row, rank);
}

template <int kRows>
void ShrinkRanks(ShrinkWork& work, int row) {
  for (int rank = 0; rank < work.ranks;) {
    const int ranks = PassRanks(kRows, work.ranks - rank);
    ShrinkExactly<kRows, kShrinkAccumulators / kRows>(work, row, rank, ranks);
    rank += ranks;
  }
}

int CountPasses(int rows, int ranks) {
  int passes = 0;
  for (int row = 0; row < rows;) {
    const int step = PassRows(rows - row);
    for (int rank = 0; rank < ranks; ++passes) rank += PassRanks(step, ranks - rank);
    row += step;
  }
  return passes;
}

void ShrinkTiles(ShrinkWork& work) {
  work.pass = 0;
  work.ahead = work.passes == 1 ? kShrinkAhead / 2 : work.tiles * work.ranks * kLineElements;
  for (int row = 0; row < work.rows;) {
    const int rows = PassRows(work.rows - row);
    if (rows == 4) {
      ShrinkRanks<4>(work, row);
    } else if (rows == 2) {
      ShrinkRanks<2>(work, row);
    } else {
      ShrinkRanks<1>(work, row);
    }
    row += rows;
  }
}

// Up to kShrinkRows rows.
void ShrinkRowBlock(const ShrinkTask& task, const Element* x, float* t, int rows) {
  ShrinkSums sums;
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < task.ranks; ++j) Store(sums.lanes[r][j], Zero());
  }
  const int tiles = task.k / kBlockK;
  ShrinkWork work;
  work.sums = &sums;
  work.x_stride = task.x.stride;
  work.rows = rows;
  work.ranks = task.ranks;
  work.passes = CountPasses(rows, task.ranks);
  uint64_t offset = task.offset;
  for (int tile = 0; tile < tiles;) {
    const int64_t left = int64_t{tiles - tile} * task.ranks;
    const Run run = RunAt(task.image, offset, left);
    int count = static_cast<int>(run.lines / task.ranks);
    if (count > kShrinkTiles) count = kShrinkTiles;
    work.x = x + tile * kBlockK;
    if (count > 0) {
      work.a = run.data;
      work.tiles = count;
      ShrinkTiles(work);
    } else {
      // This tile straddles a page: it is read from a copy.
      alignas(64) uint16_t copy[kRankGroup * kLineElements];
      CopyLines(task.image, offset, task.ranks, copy);
      work.a = copy;
      work.tiles = count = 1;
      ShrinkTiles(work);
    }
    tile += count;
    offset += static_cast<uint64_t>(count * task.ranks * kLineBytes);
  }
  for (int r = 0; r < rows; ++r) {
    float* out = t + r * task.t_stride;
    for (int j = 0; j < task.ranks; ++j) out[j] = Sum(Load(sums.lanes[r][j]));
    if (task.ranks % 2 != 0) out[task.ranks] = 0;
  }
}

void Shrink(const ShrinkTask& task) {
  const auto* x = static_cast<const Element*>(task.x.data);
  for (int row = 0; row < task.rows; row += kShrinkRows) {
    ShrinkRowBlock(task, x + row * task.x.stride, task.t + row * task.t_stride,
                   Smaller(kShrinkRows, task.rows - row));
  }
}

constexpr int kExpandPanels = kLanes == 16 ? 2 : 1;
constexpr int kExpandRows = kLanes == 16 ? 4 : kLanes == 8 ? 4 : 2;
constexpr int kExpandAhead = 4096;  // bytes

// y += scale * acc for kRows rows and `cols` columns.
template <int kRows, int kPanels>
LORAD_SIMD_INLINE void AddScaled(const Vec (&acc)[kRows][kPanels * kVecs], const ExpandTask& task,
                                 float* y, int cols) {
  const Vec scale = Set(task.scale);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) {
      float* out = y + r * task.y_stride + v * kLanes;
      const int left = cols - v * kLanes;
      if (left >= kLanes) {
        Store(out, Fma(scale, acc[r][v], Load(out)));
      } else if (left > 0) {
        // The columns beyond may be another task's.
        StorePartial(out, Fma(scale, acc[r][v], LoadPartial(out, left)), left);
      }
    }
  }
}

template <int kRows, int kPanels>
LORAD_SIMD_INLINE void ClearAccumulators(Vec (&acc)[kRows][kPanels * kVecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) acc[r][v] = Zero();
  }
}

// kPanels panels that lie one after the other in a page.
template <int kRows, int kPanels>
void ExpandBlock(const ExpandTask& task, const uint16_t* b, int row, int col) {
  Vec acc[kRows][kPanels * kVecs];
  ClearAccumulators<kRows, kPanels>(acc);
  const int64_t panel_stride = int64_t{task.rank_pairs} * kLineElements;
  const float* t = task.t + row * task.t_stride;
  const uint16_t* ahead = b + kExpandAhead / 2;
  for (int pair = 0; pair < task.rank_pairs; ++pair) {
    if (row == 0) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) PrefetchSecond(ahead + p * kLineElements);
      ahead += kPanels * kLineElements;
    }
    AddPair<kRows, kPanels>(acc, t, task.t_stride, b, panel_stride);
    t += 2;
    b += kLineElements;
  }
  AddScaled<kRows, kPanels>(acc, task, task.y + row * task.y_stride + col, task.cols - col);
}

// One panel, wherever pages end.
template <int kRows>
void ExpandStraddling(const ExpandTask& task, uint64_t offset, int row, int col) {
  Vec acc[kRows][kVecs];
  ClearAccumulators<kRows, 1>(acc);
  const float* t = task.t + row * task.t_stride;
  for (int pair = 0; pair < task.rank_pairs;) {
    const Run run = RunAt(task.image, offset, task.rank_pairs - pair);
    for (int64_t line = 0; line < run.lines; ++line) {
      AddPair<kRows, 1>(acc, t, task.t_stride, run.data + line * kLineElements, 0);
      t += 2;
    }
    pair += static_cast<int>(run.lines);
    offset += static_cast<uint64_t>(run.lines * kLineBytes);
  }
  AddScaled<kRows, 1>(acc, task, task.y + row * task.y_stride + col, task.cols - col);
}

template <int kPanels>
void ExpandRows(const ExpandTask& task, const uint16_t* b, int col) {
  int row = 0;
  for (; row + kExpandRows <= task.rows; row += kExpandRows) {
    ExpandBlock<kExpandRows, kPanels>(task, b, row, col);
  }
  for (; row < task.rows; ++row) ExpandBlock<1, kPanels>(task, b, row, col);
}

void Expand(const ExpandTask& task) {
  const int panels = (task.cols + kPanel - 1) / kPanel;
  const int64_t panel_bytes = task.rank_pairs * kLineBytes;
  uint64_t offset = task.offset;
  for (int panel = 0; panel < panels;) {
    const Run run = RunAt(task.image, offset, int64_t{panels - panel} * task.rank_pairs);
    const int whole = static_cast<int>(run.lines / task.rank_pairs);
    if (whole == 0) {
      for (int row = 0; row < task.rows; ++row) {
        ExpandStraddling<1>(task, offset, row, panel * kPanel);
      }
      ++panel;
      offset += static_cast<uint64_t>(panel_bytes);
      continue;
    }
    const int64_t panel_elements = int64_t{task.rank_pairs} * kLineElements;
    int p = 0;
    for (; p + kExpandPanels <= whole; p += kExpandPanels) {
      ExpandRows<kExpandPanels>(task, run.data + p * panel_elements, (panel + p) * kPanel);
    }
    for (; p < whole; ++p) {
      ExpandRows<1>(task, run.data + p * panel_elements, (panel + p) * kPanel);
    }
    panel += whole;
    offset += static_cast<uint64_t>(whole * panel_bytes);
  }
}

LORAD_SIMD_INLINE void ToElement(float value, float* out) { *out = value; }
LORAD_SIMD_INLINE void ToElement(float value, uint16_t* out) { *out = FloatToBf16(value); }

void Convert(const ConvertTask& task) {
  auto* out = static_cast<Element*>(task.out);
  int i = 0;
  for (; i + kLanes <= task.n; i += kLanes) {
    if constexpr (kDotNative) {
      StoreBf16(reinterpret_cast<uint16_t*>(out + i), Load(task.x + i));
    } else {
      Store(reinterpret_cast<float*>(out + i), Load(task.x + i));
    }
  }
  for (; i < task.n; ++i) ToElement(task.x[i], out + i);
  for (; i < task.padded; ++i) out[i] = 0;
}

}  // namespace
}  // namespace lorad::kernels::cpu

// The product B v of one segment and module, for kernels that add it to what they produce: v is
// summed from Shrink's partial sums, scaled and rounded once a block, then B tiles stream from
// pages to registers, a group of 32 outputs at a time.
//
// In the result of a group lane 4g + t holds, for each row tile of 16 rows, eight neighbouring
// outputs 8t .. 8t+7 of rows g and g + 8 (see Octet below).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/adapter_tiles.cuh"
#include "kernels/cuda/gpu.h"

namespace lorad::kernels::cuda {

// v of at most this many pairs of rank tiles (256 ranks) is staged in shared memory for the block;
// that of higher ranks is made anew by each warp for each of its groups.
inline constexpr int kStagedPairs = 16;
// What that needs: [row tiles of the block][pairs][lanes], then [warps][row tiles of a
// warp][lanes].
LORAD_HOST_DEVICE constexpr int StagedVectors(int row_tiles, int row_tiles_of_warp, int warps) {
  return (row_tiles * kStagedPairs + row_tiles_of_warp * warps) * 32;
}

struct Expansion {
  uint32_t first_page;
  uint32_t b;  // granule
  int rank_tiles;
  int rows;
  const float* partial;  // the module's first rank of the first row in span 0
  int spans;
  int rank_stride;
  size_t span_stride;
  float factor;

  LORAD_DEVICE int Pairs() const { return (rank_tiles + 1) / 2; }
  LORAD_DEVICE int Staged() const { return Pairs() < kStagedPairs ? Pairs() : kStagedPairs; }
  // Without the rows before `row`.
  LORAD_DEVICE Expansion From(int row) const {
    Expansion e = *this;
    e.rows -= row;
    e.partial += row * rank_stride;
    return e;
  }
};

LORAD_DEVICE Expansion ExpansionOf(const ExpandItem& item, const SegmentEntry& entry,
                                   const ModuleRecord& record, const float* scratch) {
  Expansion e;
  e.first_page = uint32_t(item.first_page);
  e.b = record.b;
  e.rank_tiles = item.rank_tiles;
  e.rows = entry.rows;
  e.partial = scratch + size_t(item.scratch);
  e.spans = item.spans;
  e.rank_stride = item.rank_stride;
  e.span_stride = size_t(entry.rows) * size_t(item.rank_stride);
  e.factor = entry.weight * record.scale;
  return e;
}

struct alignas(8) FloatPair {
  float low, high;
};

// v(row, rank .. rank + 1) as a word of an operand: the spans' sums in order, scaled, in bf16.
// Zeros where there is no row or rank tile. kAtOnce reads are on their way together.
template <int kAtOnce>
LORAD_DEVICE uint32_t VWord(const Expansion& e, int row, int rank) {
  if (row >= e.rows || rank >= e.rank_tiles * int{kTileRanks}) return 0;
  const float* at = e.partial + row * e.rank_stride + rank;
  FloatPair sum = *reinterpret_cast<const FloatPair*>(at);
  LORAD_ROLLED
  for (int span = 1; span < e.spans; span += kAtOnce) {
    FloatPair next[kAtOnce];
    LORAD_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const int some = span + i < e.spans ? span + i : 0;
      next[i] = *reinterpret_cast<const FloatPair*>(at + size_t(some) * e.span_stride);
    }
    LORAD_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      if (span + i >= e.spans) continue;
      sum.low += next[i].low;
      sum.high += next[i].high;
    }
  }
  return PackBf16(e.factor * sum.low, e.factor * sum.high);
}

// Fills to [kRowTiles][pairs][lanes] with v of pairs first .. first + pairs - 1, by `threads`
// threads of which this one is number `thread`.
template <int kRowTiles, int kAtOnce>
LORAD_DEVICE void StageV(const Expansion& e, int first, int pairs, Vec4* to, int thread,
                         int threads) {
  uint32_t* words = reinterpret_cast<uint32_t*>(to);
  const int row_words = pairs * 8;
  LORAD_ROLLED
  for (int at = thread; at < kRowTiles * 16 * row_words; at += threads) {
    // Neighbouring threads take neighbouring ranks of one row, as the partial sums lie.
    const int row = at / row_words, rank = at % row_words * 2;
    const int lane = row % 8 * 4 + rank % 8 / 2;
    const int j = row % 16 / 8 + rank % 16 / 8 * 2;
    words[((row / 16 * pairs + rank / 16) * kWarp + lane) * 4 + j] =
        VWord<kAtOnce>(e, row, first * 16 + rank);
  }
}

// Two B tiles of a group: ranks 0..7 and 8..15 of a pair of rank tiles.
struct BPair {
  Vec4 low;
  Vec4 high;
};

// kOnce: no other warp of the block reads them.
template <bool kOnce>
LORAD_DEVICE void FetchB(const PagedImages& images, const Expansion& e, int group, int pair,
                         BPair& b) {
  const uint32_t tile = BTile(e.b, uint32_t(e.rank_tiles), uint32_t(group), uint32_t(2 * pair));
  const std::byte* low = GranuleAt(images, e.first_page, tile) + Lane() * 16;
  b.low = kOnce ? LoadOnce16(low) : LoadAgain16(low);
  b.high = {};
  if (2 * pair + 1 < e.rank_tiles) {
    const std::byte* high = GranuleAt(images, e.first_page, tile + kBTileGranules) + Lane() * 16;
    b.high = kOnce ? LoadOnce16(high) : LoadAgain16(high);
  }
}

// sum += v B of one pair. `v`: the pair's operands of the first row tile, this lane's; those of the
// next ones lie `stride` vectors further each.
template <int kRowTiles>
LORAD_DEVICE void MultiplyStaged(const Vec4* v, int stride, const BPair& b,
                                 float (&sum)[kRowTiles][4][4]) {
  LORAD_UNROLL
  for (int m = 0; m < kRowTiles; ++m) {
    const Vec4 a = Load16(v + m * stride);
    const uint32_t words[4] = {a.x, a.y, a.z, a.w};
    Mma16816(sum[m][0], words, b.low.x, b.high.x);
    Mma16816(sum[m][1], words, b.low.y, b.high.y);
    Mma16816(sum[m][2], words, b.low.z, b.high.z);
    Mma16816(sum[m][3], words, b.low.w, b.high.w);
  }
}

// The same for a pair that may lie behind what is staged. `v`: what the block has staged of these
// rows. `own`: [kRowTiles][lanes] of this warp.
template <int kRowTiles>
LORAD_DEVICE void MultiplyPair(const Expansion& e, const Vec4* v, Vec4* own, int pair,
                               const BPair& b, float (&sum)[kRowTiles][4][4]) {
  const Vec4* from = v + pair * kWarp + Lane();
  int stride = e.Staged() * kWarp;
  if (pair >= kStagedPairs) {
    SyncWarp();  // the pair of before has been read
    StageV<kRowTiles, 1>(e, pair, 1, own, Lane(), kWarp);
    SyncWarp();
    from = own + Lane();
    stride = kWarp;
  }
  MultiplyStaged(from, stride, b, sum);
}

// Output 8t + i of row lane/4 (half 0) or lane/4 + 8 (half 1) of a row tile.
LORAD_DEVICE float SumAt(const float (&sum)[4][4], int half, int i) {
  return sum[i / 2][half * 2 + i % 2];
}

// Two neighbouring columns in bf16 and what is added to them, rounded once.
LORAD_DEVICE uint32_t AddBf16(uint32_t v, float low, float high) {
  return PackBf16(LowBf16(v) + low, HighBf16(v) + high);
}

}  // namespace lorad::kernels::cuda

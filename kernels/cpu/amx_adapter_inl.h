// Shrink on matrix tiles, over the tile interface of amx_gemm_inl.h: t = x A^T is a GEMM whose
// weights are an image's tiles of TileOrder::kPairMajor, as wide as the group has ranks. Expand
// stays on vectors, in fp32.
//
// Reduction order of t: the tile instruction's own over 32 inputs, then tiles in order, whatever
// the number of rows.
#pragma once

#include "kernels/cpu/amx_gemm_inl.h"
#include "kernels/cpu/image_lines_inl.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace lorad::kernels::cpu {
namespace {

constexpr int kShrinkRowTiles = 4;  // that share one pass over A

// Tiles 0 .. kRowTiles - 1 are t, 4 the rows of x of a whole tile, 5 those of the last, 6 is A.
template <class Tiles, int kRowTiles>
void TileShrinkTile(const uint16_t* a, int ranks, const uint16_t* x, int64_t x_stride) {
  const int64_t x_bytes = x_stride * int64_t{sizeof(uint16_t)};
  const int64_t next = kTileRows * x_stride;
  Tiles::template Load<6>(a, ranks * 4);
  if constexpr (kRowTiles > 1) {
    Tiles::template Load<4>(x, x_bytes);
    Tiles::template Dot<0, 4, 6>();
  }
  if constexpr (kRowTiles > 2) {
    Tiles::template Load<4>(x + next, x_bytes);
    Tiles::template Dot<1, 4, 6>();
  }
  if constexpr (kRowTiles > 3) {
    Tiles::template Load<4>(x + 2 * next, x_bytes);
    Tiles::template Dot<2, 4, 6>();
  }
  Tiles::template Load<5>(x + (kRowTiles - 1) * next, x_bytes);
  Tiles::template Dot<kRowTiles - 1, 5, 6>();
}

template <class Tiles, int kRowTiles>
void TileShrinkRows(const ShrinkTask& task, int row, int rows) {
  const int last_rows = rows - (kRowTiles - 1) * kTileRows;
  const TileShape whole = {kTileRows, task.ranks * 4}, last = {last_rows, task.ranks * 4};
  Tiles::Configure({kRowTiles == 1 ? last : whole,
                    kRowTiles == 2 ? last : whole,
                    kRowTiles == 3 ? last : whole,
                    kRowTiles == 4 ? last : whole,
                    {kTileRows, kTileBytes},
                    {last_rows, kTileBytes},
                    {kTileRows, task.ranks * 4},
                    {kTileRows, kTileBytes}});
  Tiles::template Zero<0>();
  if constexpr (kRowTiles > 1) Tiles::template Zero<1>();
  if constexpr (kRowTiles > 2) Tiles::template Zero<2>();
  if constexpr (kRowTiles > 3) Tiles::template Zero<3>();

  const auto* x = static_cast<const uint16_t*>(task.x.data) + row * task.x.stride;
  const int tiles = task.k / kBlockK;
  uint64_t offset = task.offset;
  for (int tile = 0; tile < tiles;) {
    const Run run = RunAt(task.image, offset, int64_t{tiles - tile} * task.ranks);
    int count = static_cast<int>(run.lines / task.ranks);
    for (int i = 0; i < count; ++i) {
      const uint16_t* a = run.data + int64_t{i} * task.ranks * kLineElements;
      FetchTile(a + kAmxAheadBytes / 2, task.ranks);
      TileShrinkTile<Tiles, kRowTiles>(a, task.ranks, x + (tile + i) * kBlockK, task.x.stride);
    }
    if (count == 0) {
      alignas(64) uint16_t copy[kRankGroup * kLineElements];
      CopyLines(task.image, offset, task.ranks, copy);
      TileShrinkTile<Tiles, kRowTiles>(copy, task.ranks, x + tile * kBlockK, task.x.stride);
      count = 1;
    }
    tile += count;
    offset += static_cast<uint64_t>(count * task.ranks * kLineBytes);
  }

  float* t = task.t + row * task.t_stride;
  const int64_t t_bytes = task.t_stride * int64_t{sizeof(float)};
  const int64_t next = kTileRows * task.t_stride;
  Tiles::template Store<0>(t, t_bytes);
  if constexpr (kRowTiles > 1) Tiles::template Store<1>(t + next, t_bytes);
  if constexpr (kRowTiles > 2) Tiles::template Store<2>(t + 2 * next, t_bytes);
  if constexpr (kRowTiles > 3) Tiles::template Store<3>(t + 3 * next, t_bytes);
  if (task.ranks % 2 == 0) return;
  for (int r = 0; r < rows; ++r) t[r * task.t_stride + task.ranks] = 0;
}

template <class Tiles>
void TileShrink(const ShrinkTask& task) {
  for (int row = 0; row < task.rows; row += kShrinkRowTiles * kTileRows) {
    const int rows = Smaller(task.rows - row, kShrinkRowTiles * kTileRows);
    switch ((rows + kTileRows - 1) / kTileRows) {
      case 1:
        TileShrinkRows<Tiles, 1>(task, row, rows);
        break;
      case 2:
        TileShrinkRows<Tiles, 2>(task, row, rows);
        break;
      case 3:
        TileShrinkRows<Tiles, 3>(task, row, rows);
        break;
      default:
        TileShrinkRows<Tiles, 4>(task, row, rows);
    }
  }
  Tiles::Release();
}

}  // namespace
}  // namespace lorad::kernels::cpu

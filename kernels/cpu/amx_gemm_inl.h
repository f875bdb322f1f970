// The GEMM of gemm_inl.h on matrix tiles. The tile interface is small, so that a test can run the
// same source on any machine:
//
//   Tiles::Configure(shapes)    of all eight tiles; their content is lost
//   Tiles::Release()
//   Tiles::template Zero<t>()  Load<t>(p, stride_bytes)  Store<t>(p, stride_bytes)
//   Tiles::template Dot<c, a, b>()   c += a b: a [rows][32] bf16, b [16][columns][2] bf16, c
//   [rows][columns] fp32
//
// Reduction order of an output element: the tile instruction's own over 32 inputs, then blocks of
// 32 in order; the carry between blocks of k is exact. A row of c depends on the same row of a
// alone, so the number of rows changes nothing.
#pragma once

#include "kernels/cpu/decode_inl.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace lorad::kernels::cpu {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;  // of a row, at most
struct TileShape {
  int rows;
  int row_bytes;
};
constexpr int kAmxPanels = 2;  // of a task
constexpr int kAmxTaskRows = 256;
// Blocks of 32 inputs that two panels of weights hold in the first-level cache (32 KiB) while all
// rows use them.
constexpr int kAmxKBlocks = 16;
constexpr int kAmxAheadBytes = 4096;  // in each panel, when weights are read once
constexpr int64_t kTileElements = int64_t{kPanel} * kBlockK;
constexpr int64_t kAmxCarry = kAmxPanels * kPanel;
// A thread's scratch: the carry of a task, then a block of decoded weights.
constexpr int kAmxCarryFloats = kAmxTaskRows * kAmxPanels * kPanel;
constexpr int kAmxDecodedFloats = kAmxPanels * kAmxKBlocks * kBlockK / 2 * kPanel;
constexpr int kAmxScratchFloats = kAmxCarryFloats + kAmxDecodedFloats;

LORAD_SIMD_INLINE void FetchTile(const uint16_t* tile, int lines) {
  for (int i = 0; i < lines; ++i) Prefetch(tile + i * 32);
}

// What one call of TileBlock works on.
struct TileWork {
  const uint16_t* x;  // [rows, x_stride]
  int64_t x_stride;
  const uint16_t* w;  // tiles of the first panel
  int64_t panel_stride;
  int k_blocks;
  float* carry;  // [rows, kAmxCarry]
  bool first;
  const uint16_t* ahead;  // what to fetch meanwhile
  int ahead_lines;        // of each tile
};

// One or two tiles of rows by one or two panels.
template <class Tiles, bool kTwoRows, bool kTwoPanels>
void TileBlock(const TileWork& work) {
  constexpr int64_t kCarryBytes = kAmxCarry * int64_t{sizeof(float)};
  float* lower = work.carry + kTileRows * kAmxCarry;
  if (work.first) {
    Tiles::template Zero<0>();
    if constexpr (kTwoPanels) Tiles::template Zero<1>();
    if constexpr (kTwoRows) Tiles::template Zero<2>();
    if constexpr (kTwoRows && kTwoPanels) Tiles::template Zero<3>();
  } else {
    Tiles::template Load<0>(work.carry, kCarryBytes);
    if constexpr (kTwoPanels) Tiles::template Load<1>(work.carry + kPanel, kCarryBytes);
    if constexpr (kTwoRows) Tiles::template Load<2>(lower, kCarryBytes);
    if constexpr (kTwoRows && kTwoPanels) Tiles::template Load<3>(lower + kPanel, kCarryBytes);
  }
  const int64_t x_bytes = work.x_stride * int64_t{sizeof(uint16_t)};
  for (int block = 0; block < work.k_blocks; ++block) {
    const uint16_t* x = work.x + block * kBlockK;
    const uint16_t* w = work.w + block * kTileElements;
    const uint16_t* ahead = work.ahead + block * kTileElements;
    Tiles::template Load<6>(w, kTileBytes);
    FetchTile(ahead, work.ahead_lines);
    Tiles::template Load<4>(x, x_bytes);
    Tiles::template Dot<0, 4, 6>();
    if constexpr (kTwoPanels) {
      Tiles::template Load<7>(w + work.panel_stride, kTileBytes);
      FetchTile(ahead + work.panel_stride, work.ahead_lines);
      Tiles::template Dot<1, 4, 7>();
    }
    if constexpr (kTwoRows) {
      Tiles::template Load<5>(x + kTileRows * work.x_stride, x_bytes);
      Tiles::template Dot<2, 5, 6>();
    }
    if constexpr (kTwoRows && kTwoPanels) Tiles::template Dot<3, 5, 7>();
  }
  Tiles::template Store<0>(work.carry, kCarryBytes);
  if constexpr (kTwoPanels) Tiles::template Store<1>(work.carry + kPanel, kCarryBytes);
  if constexpr (kTwoRows) Tiles::template Store<2>(lower, kCarryBytes);
  if constexpr (kTwoRows && kTwoPanels) Tiles::template Store<3>(lower + kPanel, kCarryBytes);
}

// y (+)= carry * scale + bias for `rows` rows and all panels of the task.
void FinishRows(const GemmTask& task, const float* carry, int row, int rows) {
  const int columns = (task.end_panel - task.first_panel) * kPanel;
  const int first = task.first_panel * kPanel;
  for (int r = 0; r < rows; ++r) {
    float* y = task.y + (row + r) * task.y_stride + first;
    for (int c = 0; c < columns; c += kLanes) {
      Vec value = Load(carry + r * kAmxCarry + c);
      if (task.scales) value = Mul(value, Load(task.scales + first + c));
      if (task.bias) value = Add(value, Load(task.bias + first + c));
      if (task.accumulate) value = Add(Load(y + c), value);
      Store(y + c, value);
    }
  }
}

template <class Tiles>
void TileGemm(const GemmTask& task) {
  const int rows = task.end_row - task.first_row;
  const int row_blocks = (rows + 2 * kTileRows - 1) / (2 * kTileRows);
  const int k_blocks = task.k / kBlockK;
  const bool coded = task.w == nullptr;
  const bool stream = row_blocks == 1 && !coded;
  const int step = stream ? k_blocks : kAmxKBlocks;
  const bool two_panels = task.end_panel - task.first_panel == 2;
  TileWork work;
  work.x_stride = task.x.stride;
  // Bytes of codes, elements of bf16.
  const int64_t panel_stride = k_blocks * kTileElements;
  auto* decoded = reinterpret_cast<uint16_t*>(task.scratch + kAmxCarryFloats);
  work.panel_stride = panel_stride;
  int configured = 0;
  for (int block = 0; block < k_blocks; block += step) {
    work.k_blocks = Smaller(step, k_blocks - block);
    work.first = block == 0;
    const int64_t at = task.first_panel * panel_stride + block * kTileElements;
    if (coded) {
      DecodeBlock(task.codes + at, panel_stride, task.end_panel - task.first_panel,
                  work.k_blocks * kBlockK / 2, decoded);
      work.panel_stride = work.k_blocks * kTileElements;
      work.w = work.ahead = decoded;
      work.ahead_lines = 0;
    } else {
      work.w = task.w + at;
      // Each row block fetches its share of the lines of the next block of k.
      work.ahead = stream ? work.w + kAmxAheadBytes / 2 : work.w + work.k_blocks * kTileElements;
      work.ahead_lines = stream ? kTileRows : (kTileRows + row_blocks - 1) / row_blocks;
    }
    const bool last = block + work.k_blocks == k_blocks;
    for (int row = 0; row < rows; row += 2 * kTileRows) {
      const int count = Smaller(rows - row, 2 * kTileRows);
      if (count != configured) {
        const int upper = Smaller(count, kTileRows);
        const TileShape top = {upper, kTileBytes};
        const TileShape bottom = {count > kTileRows ? count - kTileRows : upper, kTileBytes};
        const TileShape weights = {kTileRows, kTileBytes};
        Tiles::Configure({top, top, bottom, bottom, top, bottom, weights, weights});
        configured = count;
      }
      work.x = static_cast<const uint16_t*>(task.x.data) + (task.first_row + row) * task.x.stride +
               block * kBlockK;
      work.carry = task.scratch + row * kAmxCarry;
      if (count > kTileRows) {
        two_panels ? TileBlock<Tiles, true, true>(work) : TileBlock<Tiles, true, false>(work);
      } else {
        two_panels ? TileBlock<Tiles, false, true>(work) : TileBlock<Tiles, false, false>(work);
      }
      if (last) FinishRows(task, work.carry, task.first_row + row, count);
      if (!stream) work.ahead += work.ahead_lines * 32;
    }
  }
  Tiles::Release();
}

}  // namespace
}  // namespace lorad::kernels::cpu

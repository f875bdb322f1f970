// y (+)= x W^T + bias over a packed matrix, for one task of rows and panels.
//
// Reduction order of an output element: one accumulator from zero over k in steps of one pair, in
// order; then, of int8 weights, the scale; then the bias; then, if accumulating, y + that. Blocking
// over k carries the accumulator through fp32 memory, which is exact, so a row's result does not
// depend on how many rows it is computed with, nor on where blocks or tasks begin.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace lorad::kernels::cpu {
namespace {

template <bool kBf16>
struct ElementOf {
  using Type = float;
};
template <>
struct ElementOf<true> {
  using Type = uint16_t;
};
// What activations are converted to for this instruction set.
using Element = ElementOf<kDotNative>::Type;

constexpr int kVecs = kPanel / kLanes;  // vectors of one panel
// Register block: rows x panels accumulators, with room for the weights and a broadcast.
constexpr int kBlockRows = kLanes == 16 ? 8 : kLanes == 8 ? 6 : 2;
constexpr int kBlockPanels = kLanes == 16 ? 3 : 1;
constexpr int kTaskPanels = 3;
constexpr int kTaskRows = 256;
// Pairs of a k block when several row blocks share it: its weights (3 panels x 8 KiB) stay in the
// first-level cache or just outside while the next block's are fetched. Two row blocks have less
// time for that and want it spread evenly.
constexpr int BlockPairs(int row_blocks) { return row_blocks <= 2 ? 64 : 128; }
// How far ahead of a lone row block weights are fetched, bytes in each panel.
constexpr int kStreamAhead = 3072;
constexpr int kChunkPairs = 4;  // between two fetches of the next block

// Weights are bf16 or int8 codes. Codes become bf16 or floats in registers, on ports that the
// products leave idle, again for each row block: that is cheaper than to keep them decoded.
template <typename Weight>
constexpr int kCacheLine = 64 / sizeof(Weight);  // elements

// Lines of weights to fetch while a block is computed: `lines` of 64 bytes in each panel, spread
// over the block.
template <typename Weight>
struct Ahead {
  const Weight* w = nullptr;
  int64_t panel_stride = 0;
  int lines = 0;
};

// A line of weights of each of `vectors / kVecs` panels: of bf16, or of codes that are decoded on
// the way.
LORAD_SIMD_INLINE void LoadLines(Pairs* weights, const uint16_t* w, int64_t panel_stride,
                                 int vectors) {
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
    weights[v] = LoadPairs(w + (v / kVecs) * panel_stride + (v % kVecs) * 2 * kLanes);
  }
}
LORAD_SIMD_INLINE void LoadLines(Pairs* weights, const int8_t* w, int64_t panel_stride,
                                 int vectors) {
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
    const int8_t* even = w + (v / kVecs) * panel_stride + (v % kVecs) * kLanes;
    weights[v] = DecodePairs(even, even + kPanel);
  }
}

// The even or the odd inputs of the same as floats.
template <bool kOdd>
LORAD_SIMD_INLINE void LoadHalves(Vec* weights, const uint16_t* w, int64_t panel_stride,
                                  int vectors) {
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
    const Pairs pairs = LoadPairs(w + (v / kVecs) * panel_stride + (v % kVecs) * 2 * kLanes);
    weights[v] = kOdd ? Odd(pairs) : Even(pairs);
  }
}
template <bool kOdd>
LORAD_SIMD_INLINE void LoadHalves(Vec* weights, const int8_t* w, int64_t panel_stride,
                                  int vectors) {
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
    weights[v] = Widen(w + (v / kVecs) * panel_stride + (v % kVecs) * kLanes + kOdd * kPanel);
  }
}

// Adds one pair of k to kRows x kPanels panels of accumulators: bf16 activations...
template <int kRows, int kPanels, typename Weight>
LORAD_SIMD_INLINE void AddPair(Vec (&acc)[kRows][kPanels * kVecs], const uint16_t* x,
                               int64_t x_stride, const Weight* w, int64_t panel_stride) {
  Pairs weights[kPanels * kVecs];
  LoadLines(weights, w, panel_stride, kPanels * kVecs);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Pairs xr = SetPair(x + r * x_stride);
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) acc[r][v] = Dot(acc[r][v], weights[v], xr);
  }
}

// ... and fp32 activations.
template <int kRows, int kPanels, typename Weight>
LORAD_SIMD_INLINE void AddPair(Vec (&acc)[kRows][kPanels * kVecs], const float* x, int64_t x_stride,
                               const Weight* w, int64_t panel_stride) {
  Vec weights[kPanels * kVecs];
  LoadHalves<false>(weights, w, panel_stride, kPanels * kVecs);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Vec xr = Set(x[r * x_stride]);
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) acc[r][v] = Fma(weights[v], xr, acc[r][v]);
  }
  LoadHalves<true>(weights, w, panel_stride, kPanels * kVecs);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Vec xr = Set(x[r * x_stride + 1]);
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) acc[r][v] = Fma(weights[v], xr, acc[r][v]);
  }
}

// Adds `pairs` pairs, a multiple of kChunkPairs.
// kStream: weights are read once, so each step fetches the line kStreamAhead further on.
template <int kRows, int kPanels, bool kStream, typename Weight>
LORAD_SIMD_INLINE void Accumulate(Vec (&acc)[kRows][kPanels * kVecs], const Element* x,
                                  int64_t x_stride, const Weight* w, int64_t panel_stride,
                                  int pairs, const Ahead<Weight>& ahead) {
  const int chunks = pairs / kChunkPairs;
  int fetched = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    if constexpr (!kStream) {
      const int until = ahead.lines * (chunk + 1) / chunks;
      for (; fetched < until; ++fetched) {
        for (int p = 0; p < kPanels; ++p) {
          Prefetch(ahead.w + p * ahead.panel_stride + fetched * kCacheLine<Weight>);
        }
      }
    }
#pragma GCC unroll 2
    for (int pair = 0; pair < kChunkPairs; ++pair) {
      if (kStream && (sizeof(Weight) == 2 || pair % 2 == 0)) {
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          PrefetchSecond(reinterpret_cast<const char*>(w + p * panel_stride) + kStreamAhead);
        }
      }
      AddPair<kRows, kPanels>(acc, x, x_stride, w, panel_stride);
      x += 2;
      w += 2 * kPanel;
    }
  }
}

// One block of rows and panels over one block of k.
template <typename Weight>
struct Block {
  const Element* x;
  const Weight* w;
  int64_t panel_stride;  // elements
  int pairs;
  float* carry;  // [rows, carry_stride]
  int64_t carry_stride;
  bool first;  // of the blocks of k
  bool last;
  int row;
  int panel;
  Ahead<Weight> ahead;
};

template <int kRows, int kPanels, bool kStream, typename Weight>
[[gnu::noinline]] void RunBlock(const GemmTask& task, const Block<Weight>& b) {
  Vec acc[kRows][kPanels * kVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) {
      acc[r][v] = b.first ? Zero() : Load(b.carry + r * b.carry_stride + v * kLanes);
    }
  }
  Accumulate<kRows, kPanels, kStream>(acc, b.x, task.x.stride, b.w, b.panel_stride, b.pairs,
                                      b.ahead);
  if (!b.last) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVecs; ++v) {
        Store(b.carry + r * b.carry_stride + v * kLanes, acc[r][v]);
      }
    }
    return;
  }
  float* y = task.y + b.row * task.y_stride + b.panel * kPanel;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) {
      float* out = y + r * task.y_stride + v * kLanes;
      Vec value = acc[r][v];
      if (task.scales) value = Mul(value, Load(task.scales + b.panel * kPanel + v * kLanes));
      if (task.bias) value = Add(value, Load(task.bias + b.panel * kPanel + v * kLanes));
      if (task.accumulate) value = Add(Load(out), value);
      Store(out, value);
    }
  }
}

template <int kRows, bool kStream, typename Weight>
void RunPanels(const GemmTask& task, const Block<Weight>& b, int panels) {
  if constexpr (kBlockPanels == 1) {
    for (int p = 0; p < panels; ++p) {
      Block<Weight> one = b;
      one.w += p * b.panel_stride;
      one.carry += p * kPanel;
      one.panel += p;
      one.ahead.w += p * b.ahead.panel_stride;
      RunBlock<kRows, 1, kStream>(task, one);
    }
  } else {
    switch (panels) {
      case 1:
        return RunBlock<kRows, 1, kStream>(task, b);
      case 2:
        return RunBlock<kRows, 2, kStream>(task, b);
      default:
        return RunBlock<kRows, 3, kStream>(task, b);
    }
  }
}

template <bool kStream, typename Weight>
void RunRows(const GemmTask& task, const Block<Weight>& b, int rows, int panels) {
  switch (rows) {
    case 1:
      return RunPanels<1, kStream>(task, b, panels);
    case 2:
      return RunPanels<2, kStream>(task, b, panels);
    case 3:
      if constexpr (kBlockRows >= 3) return RunPanels<3, kStream>(task, b, panels);
      break;
    case 4:
      if constexpr (kBlockRows >= 4) return RunPanels<4, kStream>(task, b, panels);
      break;
    case 5:
      if constexpr (kBlockRows >= 5) return RunPanels<5, kStream>(task, b, panels);
      break;
    case 6:
      if constexpr (kBlockRows >= 6) return RunPanels<6, kStream>(task, b, panels);
      break;
    case 7:
      if constexpr (kBlockRows >= 7) return RunPanels<7, kStream>(task, b, panels);
      break;
    default:
      if constexpr (kBlockRows >= 8) return RunPanels<8, kStream>(task, b, panels);
  }
}

template <typename Weight>
void GemmOf(const GemmTask& task, const Weight* weights) {
  const int panels = task.end_panel - task.first_panel;
  const int rows = task.end_row - task.first_row;
  const int row_blocks = (rows + kBlockRows - 1) / kBlockRows;
  const int pairs = task.k / 2;
  const bool stream = row_blocks == 1;
  const int block_pairs = stream ? pairs : BlockPairs(row_blocks);
  const auto* x = static_cast<const Element*>(task.x.data);

  Block<Weight> b;
  b.panel_stride = int64_t{pairs} * 2 * kPanel;
  b.carry_stride = kTaskPanels * kPanel;
  b.panel = task.first_panel;
  b.ahead.panel_stride = b.panel_stride;
  const Weight* w = weights + task.first_panel * b.panel_stride;
  for (int pair = 0; pair < pairs; pair += block_pairs) {
    b.pairs = Smaller(block_pairs, pairs - pair);
    b.first = pair == 0;
    b.last = pair + b.pairs == pairs;
    b.w = w + pair * 2 * kPanel;
    // The next block of k is fetched while this one is computed, a share by each row block.
    const int next = Smaller(block_pairs, pairs - pair - b.pairs) * 2 * kPanel / kCacheLine<Weight>;
    int row = 0;
    for (int i = 0; i < row_blocks; ++i) {
      // Blocks of nearly equal size: a lone last row would leave most of the multipliers idle.
      const int end = rows * (i + 1) / row_blocks;
      const int begin_line = next * i / row_blocks;
      b.ahead.w = b.w + b.pairs * 2 * kPanel + begin_line * kCacheLine<Weight>;
      b.ahead.lines = next * (i + 1) / row_blocks - begin_line;
      b.row = task.first_row + row;
      b.x = x + b.row * task.x.stride + pair * 2;
      b.carry = task.scratch + row * b.carry_stride;
      if (stream) {
        RunRows<true>(task, b, end - row, panels);
      } else {
        RunRows<false>(task, b, end - row, panels);
      }
      row = end;
    }
  }
}

void Gemm(const GemmTask& task) {
  if (task.w == nullptr) return GemmOf(task, task.codes);
  GemmOf(task, task.w);
}

}  // namespace
}  // namespace lorad::kernels::cpu

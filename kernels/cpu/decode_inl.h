// From int8 codes to the bf16 that a matrix tile loads, a block at a time into this thread's
// scratch: a block's codes are read from memory once, half the bytes of bf16, and its decoded form
// stays in the first-level cache for all rows of the task. Every code is exactly a bf16; the scales
// are applied to the sums.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace lorad::kernels::cpu {
namespace {

// Bytes of codes of one pair of inputs of a panel, and elements of the same decoded.
constexpr int kCodeLine = 2 * kPanel;
// How far ahead codes are fetched, bytes in each panel.
constexpr int kCodesAhead = 2048;

// Decodes `pairs` pairs of `panels` panels, which lie `panel_stride` bytes apart, to
// out [panels][pairs][16][2].
void DecodeBlock(const int8_t* codes, int64_t panel_stride, int panels, int pairs, uint16_t* out) {
  for (int p = 0; p < panels; ++p) {
    const int8_t* from = codes + p * panel_stride;
    for (int pair = 0; pair < pairs; ++pair) {
      if (pair % 2 == 0) PrefetchSecond(from + kCodesAhead);
#pragma GCC unroll 4
      for (int lane = 0; lane < kPanel; lane += kLanes) {
        StorePairs(out + 2 * lane, DecodePairs(from + lane, from + kPanel + lane));
      }
      from += kCodeLine;
      out += kCodeLine;
    }
  }
}

}  // namespace
}  // namespace lorad::kernels::cpu

// KernelTable: the inner kernels of one instruction set. Each isa_*.cc compiles the same *_inl.h
// sources with its own -m flags and exports one table; CpuBackend picks a table at start and cuts
// operations into the tasks below, which its threads run.
//
// Plain data only: this header is compiled with different instruction sets, so nothing in it may
// have external linkage and a body (see simd.h), hence no standard containers and none of
// kernels/types.h.
//
// To add a kernel: describe its task here as a plain struct, add a pointer to KernelTable, write
// the function with the words of simd.h in an *_inl.h (anonymous namespace), and name it in
// isa_table_inl.h. No -m flag and no dispatch is yours to write.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lorad::kernels::cpu {

inline constexpr int kPanel = 16;      // output columns that lie side by side in a packed matrix
inline constexpr int kBlockK = 32;     // inputs are padded to a multiple of this
inline constexpr int kRankGroup = 16;  // rows of an adapter's A that are stored and shrunk together

// Activations as the base GEMM and the adapter kernels read them: bf16 if
// KernelTable::bf16_activations, else fp32. Rows are padded with zeros to a multiple of kBlockK
// columns.
struct Activations {
  const void* data = nullptr;  // [rows, stride]
  int64_t stride = 0;          // elements
};

// y[first_row .. end_row, panels first_panel .. end_panel) (+)= x W^T + bias.
struct GemmTask {
  Activations x;
  const uint16_t* w = nullptr;  // [panels][k/2][16][2] bf16
  const float* bias = nullptr;  // [panels * 16] or null
  float* y = nullptr;  // [rows, y_stride]; columns up to the next multiple of 16 are written
  int64_t y_stride = 0;
  int k = 0;  // padded
  bool accumulate = false;
  int first_panel = 0;
  int end_panel = 0;
  int first_row = 0;
  int end_row = 0;
  float* scratch =
      nullptr;  // this thread's, KernelTable::gemm_scratch_floats of them, 64-byte aligned
};

// An adapter's image in the page pool: byte b of it is byte b % page_bytes of slab page pages[b /
// page_bytes].
struct PagedImage {
  const std::byte* slab = nullptr;
  uint64_t page_bytes = 0;
  const uint32_t* pages = nullptr;
};

// t[row, 0 .. ranks) = A x[row] for one group of at most kRankGroup rows of one A, stored
// [k/32][ranks][32] bf16 from `offset` on.
struct ShrinkTask {
  Activations x;  // of the segment's rows
  PagedImage image;
  uint64_t offset = 0;
  int ranks = 0;
  int k = 0;  // padded
  int rows = 0;
  void* t = nullptr;  // [rows, t_stride], the elements of x; the group's first rank
  int64_t t_stride = 0;
};

// y[row, 0 .. cols) += scale * B t[row] for consecutive panels of one B, stored
// [panels][rank_pairs][16][2] bf16 from `offset` on.
struct ExpandTask {
  const void* t = nullptr;  // [rows, t_stride], rank padded to even with zero
  int64_t t_stride = 0;
  PagedImage image;
  uint64_t offset = 0;
  int rank_pairs = 0;
  int cols = 0;
  int rows = 0;
  float scale = 0;
  float* y = nullptr;  // [rows, y_stride] at the first column
  int64_t y_stride = 0;
};

// out[0 .. n) = x as activations, zeros up to `padded`.
struct ConvertTask {
  const float* x = nullptr;
  void* out = nullptr;
  int n = 0;
  int padded = 0;
};

struct KernelTable {
  const char* name;
  bool bf16_activations;
  int gemm_rows;            // rows of one task at most
  int gemm_panels;          // panels of one task at most
  int gemm_scratch_floats;  // per thread

  void (*gemm)(const GemmTask&);
  void (*shrink)(const ShrinkTask&);
  void (*expand)(const ExpandTask&);
  void (*convert)(const ConvertTask&);
  // Attention and element-wise kernels follow.
};

// Null if this build does not target the instruction set's architecture.
const KernelTable* PortableKernels();
const KernelTable* Avx2Kernels();
const KernelTable* Avx512Kernels();
const KernelTable* Avx512Bf16Kernels();
const KernelTable* AmxKernels();

}  // namespace lorad::kernels::cpu

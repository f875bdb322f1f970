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
  const uint16_t* w = nullptr;    // [panels][k/2][16][2] bf16; null: codes and scales
  const int8_t* codes = nullptr;  // [panels][k/2][2][16]
  const float* scales = nullptr;  // [panels * 16]: a weight is its code times its output's scale
  const float* bias = nullptr;    // [panels * 16] or null
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

// t[row, 0 .. ranks) = A x[row] for one group of at most kRankGroup rows of one A, stored from
// `offset` on in tiles of 32 inputs, each in the order of KernelTable::tile_order.
struct ShrinkTask {
  Activations x;  // of the segment's rows
  PagedImage image;
  uint64_t offset = 0;
  int ranks = 0;
  int k = 0;  // padded
  int rows = 0;
  float* t = nullptr;  // [rows, t_stride]; the group's first rank
  int64_t t_stride = 0;
};

// y[row, 0 .. cols) += scale * B t[row] for consecutive panels of one B, stored
// [panels][rank_pairs][16][2] bf16 from `offset` on.
struct ExpandTask {
  const float* t = nullptr;  // [rows, t_stride], rank padded to even with zero
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

// --- Element-wise, one row or head each ---

// y = x * weight / sqrt(mean(x^2) + eps). y may be x.
struct RmsNormTask {
  const float* x = nullptr;       // [n]
  const float* weight = nullptr;  // [n]
  float* y = nullptr;             // [n]
  int n = 0;
  float eps = 0;
};

// out = gate / (1 + e^-gate) * up.
struct SwiGluTask {
  const float* gate = nullptr;  // [n]
  const float* up = nullptr;    // [n]
  float* out = nullptr;         // [n]
  int n = 0;
};

// Normalises (if `norm`) and rotates one head in place.
struct RopeTask {
  float* head = nullptr;          // [head_dim]
  const float* angles = nullptr;  // [head_dim] cosines, then sines
  const float* norm = nullptr;    // [head_dim] or null
  float eps = 0;
  int head_dim = 0;
};

// --- KV pages ---
// What a page holds for one layer and kv head: keys [page_tokens/16][head_dim/2][16 tokens][2]
// bf16, so that a lane is a token, then values [page_tokens][value stride] bf16, so that a lane is
// a dimension.

inline constexpr int kKeyBlock = 16;      // tokens whose keys lie interleaved
inline constexpr int kValueGranule = 32;  // a value row is padded with zeros to a multiple of this
inline constexpr int kMaxHeadDim = 256;
inline constexpr int kAttendKeys =
    64;  // keys between two rescalings of the softmax, at absolute positions
inline constexpr int kAttendSplit =
    1024;  // keys after which partial results are merged, at absolute positions
inline constexpr int kAttendQueries = 64;  // rows * group of one task at most

// Writes one token's key and value of one kv head.
struct AppendTask {
  const float* key = nullptr;    // [head_dim]
  const float* value = nullptr;  // [head_dim]
  std::byte* page = nullptr;     // at the layer and kv head
  int token = 0;                 // within the page
  int page_tokens = 0;
  int head_dim = 0;
};

// Attention of consecutive rows of one sequence, for the q heads that share one kv head, over those
// of the keys [first_key, end_key) that each row sees. Gives the unfinished softmax: for each query
// (row * group + q head within the group) a state of AttendStateFloats(head_dim) floats.
struct AttendTask {
  const float* q = nullptr;  // [rows, q_stride]: the group's q heads side by side at the start
  int64_t q_stride = 0;
  int rows = 0;
  int group = 0;
  int head_dim = 0;
  float scale = 0;
  int first_position = 0;  // of row 0
  int window = 0;          // 0: none
  int first_key = 0;       // a multiple of kAttendKeys
  int end_key = 0;         // a multiple of kAttendKeys, or beyond the last row's position
  const std::byte* slab = nullptr;
  uint64_t page_bytes = 0;
  const uint32_t* pages = nullptr;  // of the sequence
  uint64_t offset = 0;              // of the layer and kv head in a page
  int page_tokens = 0;
  float* states = nullptr;   // [rows * group, AttendStateFloats]
  float* scratch = nullptr;  // AttendScratchFloats(head_dim), 64-byte aligned
};

// A state: the highest score and the sum of weights in its first 32 floats, then the weighted sum
// of values. (Static: see the rule above.)
static constexpr int ValueStride(int head_dim) {
  return (head_dim + kValueGranule - 1) / kValueGranule * kValueGranule;
}
static constexpr int AttendStateFloats(int head_dim) { return 32 + ValueStride(head_dim); }
static constexpr int AttendScratchFloats(int head_dim) {
  return kAttendQueries * (head_dim + kAttendKeys + 1);
}

// into = into and from, for states over earlier and later keys of the same queries.
struct FoldTask {
  float* into = nullptr;        // [queries, AttendStateFloats]
  const float* from = nullptr;  // [queries, AttendStateFloats]
  int queries = 0;
  int head_dim = 0;
};

// Attention's result from the states of one row's group.
struct FinishTask {
  const float* states = nullptr;  // [group, AttendStateFloats]
  float* out = nullptr;           // [group * head_dim]
  int group = 0;
  int head_dim = 0;
};

// How a tile of A, 32 inputs of a group of ranks, lies in an image: for lanes over inputs, or as
// the right operand of a matrix tile.
enum class TileOrder : uint8_t { kRankMajor /* [ranks][32] */, kPairMajor /* [16][ranks][2] */ };

struct KernelTable {
  const char* name;
  bool bf16_activations;
  TileOrder tile_order;
  int gemm_rows;            // rows of one task at most
  int gemm_panels;          // panels of one task at most
  int gemm_scratch_floats;  // per thread

  void (*gemm)(const GemmTask&);
  void (*shrink)(const ShrinkTask&);
  void (*expand)(const ExpandTask&);
  void (*convert)(const ConvertTask&);

  void (*rms_norm)(const RmsNormTask&);
  void (*swiglu)(const SwiGluTask&);
  void (*rope)(const RopeTask&);
  void (*append)(const AppendTask&);
  void (*attend)(const AttendTask&);
  void (*fold)(const FoldTask&);
  void (*finish)(const FinishTask&);
};

// Null if this build does not target the instruction set's architecture.
const KernelTable* PortableKernels();
const KernelTable* Avx2Kernels();
const KernelTable* Avx512Kernels();
const KernelTable* Avx512Bf16Kernels();
const KernelTable* AmxKernels();

}  // namespace lorad::kernels::cpu

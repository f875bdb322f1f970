// Plain descriptions of numbers that the kernels read and write: element types, host matrices,
// pages, adapter images. Values only: nothing here owns memory or knows of requests. Shapes are
// row-major unless said otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lorad::kernels {

enum class DType : uint8_t { kF32, kF16, kBF16 };

constexpr size_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// How a base weight matrix is kept. Low precision is weight-only: products are computed in bf16
// (fp32 sums), adapters stay in bf16 and read the unquantised input.
enum class WeightFormat : uint8_t {
  kBf16,
  kInt8,  // symmetric, one fp32 scale a row (output)
  kInt4,  // symmetric, one fp32 scale for every 64 inputs of a row; not on the CPU
  kFp8,   // e4m3, one fp32 scale a row; not on the CPU
};

// How keys and values are kept in pages.
enum class KvFormat : uint8_t {
  kBf16,
  kFp8,  // e4m3, one fp32 scale for each token, head and K or V; CUDA only
};

// What a tensor must hold.
enum class Precision : uint8_t {
  kActivation,  // the backend's own element type for activations: bf16 on CUDA, fp32 elsewhere
  kFull,        // fp32 on every backend: the residual stream, rotation angles, logits
};

// A matrix in host memory as a file gives it. Borrowed; `data` need only be byte-aligned.
struct HostMatrix {
  DType dtype = DType::kF32;
  const void* data = nullptr;  // [rows, cols]
  int64_t rows = 0;
  int64_t cols = 0;
};

// The memory of the page pool as kernels see it: page i starts at `data + i * page_bytes`.
// `page_bytes` is a multiple of kPageGranule and `data` is aligned to it.
struct PageSlab {
  std::byte* data = nullptr;
  size_t page_bytes = 0;

  std::byte* Page(uint32_t index) const { return data + size_t{index} * page_bytes; }
};

inline constexpr size_t kPageGranule = 4096;

// Page `to` of the slab becomes a copy of page `from`, whatever they hold.
struct PageCopy {
  uint32_t from = 0;
  uint32_t to = 0;
};

// Geometry of the KV cache. A page holds the keys and values of `page_tokens` consecutive tokens of
// one sequence for all layers; what lies where inside a page is the backend's own business.
struct KvGeometry {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int page_tokens = 16;  // a multiple of 16
};

// Rows of a step's batch that belong to one sequence: consecutive rows hold consecutive positions.
struct SequenceRows {
  int first_row = 0;
  int end_row = 0;                     // exclusive
  int first_position = 0;              // position in the sequence of `first_row`
  std::span<const uint32_t> kv_pages;  // page of positions [i*page_tokens, (i+1)*page_tokens),
                                       // covers every row's position
};

// `rows` rows of `row_bytes` each inside an adapter image. Row i lies whole within one page of the
// image, so a kernel looks up the page table once a row at most. Rows fill a page as far as they
// fit whole; the next row starts the next page. (CUDA: rows are tiles, and the A tiles of a site's
// modules interleave: kernels/cuda/adapter_index.h.)
struct TileRows {
  uint64_t offset = 0;     // of row 0 from the start of the image, bytes
  uint32_t row_bytes = 0;  // <= page_bytes
  uint32_t rows = 0;
};

// One low-rank factor pair of an adapter: adds  weight * scale * B (A x)  to columns [out_begin,
// out_begin + out_cols) of what its site's linear layer produces. `a` and `b` are in the backend's
// own tile order.
struct AdapterModule {
  uint32_t site = 0;
  uint32_t rank = 0;
  uint32_t d_in = 0;
  uint32_t out_begin = 0;
  uint32_t out_cols = 0;
  float scale = 1.0f;
  TileRows a;  // A [rank, d_in]
  TileRows b;  // B [out_cols, rank]
};

// Where each module of one adapter lies in its image. A *site* is one linear layer of the model
// (possibly several projections that share an input: q,k,v or gate,up), numbered densely in the
// order of execution, so that the image is layer-major. Made by Backend::PlanAdapter, immutable
// afterwards.
struct AdapterLayout {
  uint64_t image_bytes = 0;
  uint32_t pages = 0;
  std::vector<AdapterModule> modules;  // by site, then out_begin
  std::vector<uint32_t> site_begin;    // [sites + 1] index of a site's first module
  // For the CUDA backend, empty elsewhere: the most modules of any site, and for each site the
  // first one with equal modules, but for their scales.
  uint32_t site_modules = 0;
  std::vector<uint32_t> site_shape;

  std::span<const AdapterModule> At(uint32_t site) const {
    if (site + 1 >= site_begin.size()) return {};
    return std::span(modules).subspan(site_begin[site], site_begin[site + 1] - site_begin[site]);
  }
};

// What PlanAdapter needs to know of a module, and PackAdapter's source for it.
struct LowRankFactors {
  uint32_t site = 0;
  uint32_t out_begin = 0;
  float scale = 1.0f;
  HostMatrix a;  // [rank, d_in]
  HostMatrix b;  // [out_cols, rank]
};

class AdapterTransfer;  // backend.h

// Rows [first_row, end_row) of the batch use this adapter. Segments of one step do not overlap
// (yet) and are ordered by row; rows in no segment are base-model rows and cost nothing.
struct AdapterSegment {
  int first_row = 0;
  int end_row = 0;  // exclusive
  const AdapterLayout* layout = nullptr;
  std::span<const uint32_t> pages;  // image page i is slab page pages[i]
  float weight = 1.0f;              // the request's own factor, multiplies the module's scale
  const AdapterTransfer* transfer = nullptr;  // null: the whole image is in its pages
};

}  // namespace lorad::kernels

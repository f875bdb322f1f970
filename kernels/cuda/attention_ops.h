// Attention ops: rotation and append to the paged KV cache, and attention over it.
//
// Numbers: the keys of a sequence are taken in chunks of kKeyChunk by absolute position; each chunk
// gives a partial softmax (maximum, sum, weighted values) and partials are merged in order. A row's
// result depends on its own sequence only, and has the same bits in decode and in any chunk of a
// prefill.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

inline constexpr int kKeyChunk = 256;  // positions

// Where keys and values lie in a page; see kv_layout.h.
size_t KvPageBytes(const KvGeometry& geometry, KvFormat format);

struct KvView {
  std::byte* slab = nullptr;
  size_t page_bytes = 0;
  KvGeometry geometry;
  KvFormat format = KvFormat::kBf16;
};

// Where a row of the batch goes; page < 0: nowhere (a row that only fills up a bucket).
struct RowPlace {
  int32_t page = -1;  // of the slab
  int32_t slot = 0;   // token in the page
  int32_t position = 0;
  int32_t reserved = 0;
};

struct RopeAppendParams {
  int rows = 0;
  int layer = 0;
  AttentionShape shape;
  TensorView qkv;     // bf16; q is rotated in place
  TensorView angles;  // fp32
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float norm_eps = 0;
  const RowPlace* places = nullptr;  // [rows]
  KvView kv;
};
void LaunchRopeAppend(Launcher& launch, const DeviceFacts& device, const RopeAppendParams& params);

// Query rows (tokens times heads of one KV head's group) over some chunks of keys. Items have up to
// kItemRows rows and share the work of a chunk among a block's warps; tiles have up to kTileRows
// and give each warp kItemRows of them.
inline constexpr int kItemRows = 16;
inline constexpr int kTileRows = 64;

struct AttentionItem {
  int32_t first_row = 0;       // of the batch
  int32_t tokens = 0;          // rows first_row .. + tokens
  int32_t first_position = 0;  // of first_row
  int32_t kv_head = 0;
  int32_t head_begin = 0;  // of the query heads in the group, when a group is larger than 16
  int32_t heads = 0;
  int32_t first_page = 0;  // index of the sequence's page 0 in AttentionWork::pages
  int32_t chunk_begin = 0;
  int32_t chunk_end = 0;
  int32_t partial = -1;  // -1: the item covers all its chunks and writes the output itself;
                         // otherwise it covers one, and this is where its partial goes (a tile's:
                         // its partials, one for every kItemRows rows)
};
// Query rows, kItemRows at most, whose partials are to be merged.
struct MergeItem {
  int32_t first_row = 0;
  int32_t tokens = 0;  // of the item or tile
  int32_t kv_head = 0;
  int32_t head_begin = 0;
  int32_t heads = 0;
  int32_t row_begin = 0;  // first of the query rows, within the item or tile
  int32_t partial = 0;    // of the first chunk
  int32_t stride = 0;     // partials from one chunk to the next
  int32_t partials = 0;   // one a chunk
};
struct AttentionWork {
  std::vector<RowPlace> places;      // [rows]
  std::vector<uint32_t> pages;       // of all sequences
  std::vector<AttentionItem> items;  // few rows: decode
  std::vector<AttentionItem> tiles;  // many rows: prefill
  std::vector<MergeItem> merges;     // of both
  int partials = 0;  // partial results that are written, each PartialFloats(shape) floats
};
// Builds the lists of a step; `work` is reused. The same for every layer. Rows beyond the
// sequences' get no place. How the work is cut depends on the device, results do not.
void PlanAttention(std::span<const SequenceRows> sequences, int rows, const AttentionShape& shape,
                   int page_tokens, const DeviceFacts& device, AttentionWork* work);
size_t PartialFloats(const AttentionShape& shape);  // of kItemRows query rows

struct AttentionParams {
  int layer = 0;
  AttentionShape shape;
  TensorView qkv;  // bf16, as RopeAppend left it
  TensorView out;  // bf16, [rows, heads * head_dim]
  const uint32_t* pages = nullptr;
  ListView<AttentionItem> items;
  int item_capacity = 0;
  ListView<AttentionItem> tiles;
  int tile_capacity = 0;
  ListView<MergeItem> merges;
  int merge_capacity = 0;
  float* partials = nullptr;
  KvView kv;
};
// One launch for each of items, tiles and merges whose capacity is not 0.
void LaunchAttention(Launcher& launch, const DeviceFacts& device, const AttentionParams& params);

std::vector<KernelRef> AttentionKernels();

}  // namespace lorad::kernels::cuda

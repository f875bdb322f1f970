#include <algorithm>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/kv_layout.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

// Up to so many query rows of a sequence and KV head make items, more make tiles. Two items read
// their keys twice but keep eight warps busy with them; a tile with 32 rows would leave two of its
// four warps idle.
constexpr int kFewRows = 2 * kItemRows;
constexpr int kBlocksOfMultiprocessor = 3;

int Chunks(const AttentionItem& item) { return item.chunk_end - item.chunk_begin; }

void Append(const SequenceRows& sequence, const AttentionShape& shape, int first_page,
            AttentionWork* work) {
  const int group = shape.heads / shape.kv_heads;
  const int pieces = (group + kItemRows - 1) / kItemRows;
  const int tokens = sequence.end_row - sequence.first_row;
  for (int kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    for (int piece = 0; piece < pieces; ++piece) {
      const int head_begin = group * piece / pieces;
      const int heads = group * (piece + 1) / pieces - head_begin;
      const bool few = tokens * heads <= kFewRows;
      const int step = (few ? kItemRows : kTileRows) / heads;
      for (int token = 0; token < tokens; token += step) {
        AttentionItem item;
        item.first_row = sequence.first_row + token;
        item.tokens = std::min(step, tokens - token);
        item.first_position = sequence.first_position + token;
        item.kv_head = kv_head;
        item.head_begin = head_begin;
        item.heads = heads;
        item.first_page = first_page;
        const int first =
            shape.window > 0 ? std::max(0, item.first_position - shape.window + 1) : 0;
        item.chunk_begin = first / kKeyChunk;
        item.chunk_end = (item.first_position + item.tokens - 1) / kKeyChunk + 1;
        (few ? work->items : work->tiles).push_back(item);
      }
    }
  }
}

// Cuts items (or tiles) of more than `longest` chunks into one for each chunk.
void Cut(double longest, std::vector<AttentionItem>* items, AttentionWork* work) {
  std::vector<AttentionItem> whole;
  whole.swap(*items);
  for (AttentionItem item : whole) {
    const int chunks = Chunks(item);
    if (chunks == 1 || chunks <= longest) {
      items->push_back(item);
      continue;
    }
    const int rows = item.tokens * item.heads;
    const int stride = (rows + kItemRows - 1) / kItemRows;
    for (int i = 0; i < stride; ++i) {
      MergeItem merge;
      merge.first_row = item.first_row;
      merge.tokens = item.tokens;
      merge.kv_head = item.kv_head;
      merge.head_begin = item.head_begin;
      merge.heads = item.heads;
      merge.row_begin = i * kItemRows;
      merge.partial = work->partials + i;
      merge.stride = stride;
      merge.partials = chunks;
      work->merges.push_back(merge);
    }
    const int end = item.chunk_end;
    for (int chunk = item.chunk_begin; chunk < end; ++chunk) {
      item.chunk_begin = chunk;
      item.chunk_end = chunk + 1;
      item.partial = work->partials;
      work->partials += stride;
      items->push_back(item);
    }
  }
}

// Chunks for each block that the device runs at once, were the work spread evenly.
double Share(const std::vector<AttentionItem>& items, const DeviceFacts& device) {
  double chunks = 0;
  for (const AttentionItem& item : items) chunks += Chunks(item);
  return chunks / (kBlocksOfMultiprocessor * std::max(1, device.multiprocessors));
}

void LongestFirst(std::vector<AttentionItem>* items) {
  std::ranges::stable_sort(*items, std::ranges::greater(), Chunks);
}

}  // namespace

KvLayout LayoutOf(const KvGeometry& geometry, KvFormat format) {
  return {.page_tokens = geometry.page_tokens,
          .padded_dim = PaddedHeadDim(geometry.head_dim),
          .element_bytes = format == KvFormat::kFp8 ? 1 : 2,
          .kv_heads = geometry.kv_heads};
}

size_t KvPageBytes(const KvGeometry& geometry, KvFormat format) {
  LORAD_CHECK(geometry.page_tokens % kBlockTokens == 0);
  const size_t bytes = LayoutOf(geometry, format).Head(geometry.layers, 0);
  return (bytes + kPageGranule - 1) / kPageGranule * kPageGranule;
}

size_t PartialFloats(const AttentionShape& shape) {
  return size_t(kItemRows) * size_t(2 + PaddedHeadDim(shape.head_dim));
}

void PlanAttention(std::span<const SequenceRows> sequences, int rows, const AttentionShape& shape,
                   int page_tokens, const DeviceFacts& device, AttentionWork* work) {
  work->places.assign(size_t(rows), RowPlace{});
  work->pages.clear();
  work->items.clear();
  work->tiles.clear();
  work->merges.clear();
  work->partials = 0;
  for (const SequenceRows& sequence : sequences) {
    LORAD_CHECK(0 <= sequence.first_row && sequence.end_row <= rows);
    if (sequence.first_row == sequence.end_row) continue;
    const int end = sequence.first_position + sequence.end_row - sequence.first_row;
    const size_t pages = size_t((end + page_tokens - 1) / page_tokens);
    LORAD_CHECK(sequence.kv_pages.size() >= pages);
    for (int row = sequence.first_row; row < sequence.end_row; ++row) {
      const int position = sequence.first_position + row - sequence.first_row;
      work->places[size_t(row)] = {
          .page = static_cast<int32_t>(sequence.kv_pages[size_t(position / page_tokens)]),
          .slot = position % page_tokens,
          .position = position};
    }
    Append(sequence, shape, static_cast<int>(work->pages.size()), work);
    work->pages.insert(work->pages.end(), sequence.kv_pages.begin(),
                       sequence.kv_pages.begin() + static_cast<ptrdiff_t>(pages));
  }
  // Partials of an item are small beside the keys it reads, so items stay whole only where the
  // longest does not show at the end of the launch. Those of a tile are a quarter of its keys, so
  // tiles are cut only where the device would be idle.
  Cut(Share(work->items, device) / 4, &work->items, work);
  Cut(Share(work->tiles, device) * 1.5, &work->tiles, work);
  LongestFirst(&work->items);
  LongestFirst(&work->tiles);
}

}  // namespace lorad::kernels::cuda

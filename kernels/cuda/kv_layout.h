// Where the keys and values of a token lie in a page of the KV cache. A page is
// [layer][kv head] heads, and a head is
//
//   keys [page_tokens / 16] blocks | values [page_tokens / 16] blocks | fp8: fp32 scales of the
//   keys [page_tokens], of the values [page_tokens]
//
// A block holds 16 tokens in tiles of 256 elements, each in the order in which the lanes of a warp
// hold the B operand of mma.m16n8k16 (PTX ISA, "Matrix fragments for mma.m16n8k16"), so that a
// lane's part of a tile is one load of 8 elements and a warp's is one run of memory:
//
//   key tile, 8 tokens x 32 dims: lane 4g + t has dims 8t .. 8t+7 of token g. The k index of a
//     product is a dim, and any order of dims will do if the queries have the same one
//     (attention_core.h).
//   value tile, 16 tokens x 16 dims: lane 4g + t has tokens 2t, 2t+1, 2t+8, 2t+9 of dim g, then of
//     dim g + 8.
//
// A head has PaddedHeadDim dims; the padding of keys is zero, that of values is never read. Nothing
// in a page depends on where the page is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/host_device.h"

namespace lorad::kernels::cuda {

inline constexpr int kBlockTokens = 16;
inline constexpr int kTileElements = 256;
inline constexpr int kKeyTileTokens = 8;
inline constexpr int kKeyTileDims = 32;
inline constexpr int kValueTileDims = 16;

LORAD_HOST_DEVICE constexpr int PaddedHeadDim(int head_dim) {
  return (head_dim + kKeyTileDims - 1) / kKeyTileDims * kKeyTileDims;
}

struct KvLayout {
  int page_tokens = 16;
  int padded_dim = 32;    // PaddedHeadDim
  int element_bytes = 2;  // 1: fp8
  int kv_heads = 1;

  LORAD_HOST_DEVICE constexpr bool scaled() const { return element_bytes == 1; }
  // Of the keys or of the values of kBlockTokens tokens.
  LORAD_HOST_DEVICE constexpr int BlockBytes() const {
    return kBlockTokens * padded_dim * element_bytes;
  }
  LORAD_HOST_DEVICE constexpr int TileBytes() const { return kTileElements * element_bytes; }

  // Bytes from the start of a head.
  LORAD_HOST_DEVICE constexpr int Keys() const { return 0; }
  LORAD_HOST_DEVICE constexpr int Values() const {
    return page_tokens * padded_dim * element_bytes;
  }
  LORAD_HOST_DEVICE constexpr int KeyScales() const { return 2 * Values(); }
  LORAD_HOST_DEVICE constexpr int ValueScales() const { return KeyScales() + 4 * page_tokens; }
  LORAD_HOST_DEVICE constexpr int HeadBytes() const {
    return KeyScales() + (scaled() ? 8 * page_tokens : 0);
  }
  // Bytes from the start of a page.
  LORAD_HOST_DEVICE constexpr size_t Head(int layer, int kv_head) const {
    return (static_cast<size_t>(layer) * static_cast<size_t>(kv_heads) +
            static_cast<size_t>(kv_head)) *
           static_cast<size_t>(HeadBytes());
  }

  // Elements from the start of the keys or the values of a head. `slot`: token in the page.
  LORAD_HOST_DEVICE constexpr int Key(int slot, int dim) const {
    const int tile = slot / kKeyTileTokens * (padded_dim / kKeyTileDims) + dim / kKeyTileDims;
    return tile * kTileElements + slot % kKeyTileTokens * kKeyTileDims + dim % kKeyTileDims;
  }
  LORAD_HOST_DEVICE constexpr int Value(int slot, int dim) const {
    const int tile = slot / kBlockTokens * (padded_dim / kValueTileDims) + dim / kValueTileDims;
    const int lane = dim % 8 * 4 + slot % 8 / 2;
    return tile * kTileElements + lane * 8 + dim % kValueTileDims / 8 * 4 +
           slot % kBlockTokens / 8 * 2 + slot % 2;
  }
};

}  // namespace lorad::kernels::cuda

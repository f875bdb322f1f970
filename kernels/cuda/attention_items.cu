// Attention of up to 16 query rows: decode, and the ends of prefills. A block has one item; its
// four warps share the keys of a chunk when scores are computed, and the dims when values are
// added.
//
// Limit: reading keys and values once, each warp straight into the registers of its products (L1
// is bypassed, nothing is reused). In flight for each warp: 8 KiB of keys (4 KiB in fp8) ahead of
// the scores, then 8 KiB of values, requested before the weights are known. With three blocks a
// multiprocessor that is 96 KiB (2 blocks and 64 KiB for head_dim above 128), several times what
// latency times bandwidth asks for (some 25 KiB at 3.35 TB/s), so that the barriers of a chunk,
// two, and the softmax are hidden.
#include "kernels/cuda/attention_core.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/gpu.h"

namespace lorad::kernels::cuda {
namespace {

// kDim: the padded head_dim at most; kExact: head_dim itself.
template <int kDim, bool kExact, KvFormat kFormat>
LORAD_KERNEL(kAttendThreads, kDim <= 128 ? 3 : 2)
void AttendItem(AttendArgs args) {
  using TileT = Tile<kFormat>;
  using Part = typename TileT::Part;
  constexpr bool kScaled = kFormat == KvFormat::kFp8;
  constexpr int kKeyTiles = kDim / kKeyTileDims;
  constexpr int kValueTiles = kDim / kValueTileDims / kAttendWarps;  // of a warp
  constexpr int kKeysAhead = 512 / kDim;                             // of 8 tiles of 8 keys
  constexpr int kTogether = kDim <= 128 ? 2 : 1;     // tiles whose chains of products alternate
  constexpr int kValuesAhead = 1024 / kDim;          // of 16 halves of blocks
  constexpr int kOwn = kChunkBlocks / kAttendWarps;  // blocks of a warp: warp, warp + 4

  if (BlockX() >= *args.items.count) return;
  const AttentionItem item = args.items.items[BlockX()];
  const int key_tiles = kExact ? kKeyTiles : args.layout.padded_dim / kKeyTileDims;
  const int value_tiles = (args.head_dim + kValueTileDims - 1) / kValueTileDims;
  const int block_bytes =
      kExact ? kDim * kBlockTokens * TileT::kElementBytes : args.layout.BlockBytes();
  const int g = Lane() / 4;
  const int warp = Shuffle(Warp(), 0);  // tells the compiler that it is the same in all lanes
  const int positions[2] = {RowOf(item, args.group, g).position,
                            RowOf(item, args.group, g + 8).position};
  // What any row of the item sees.
  const int last = item.first_position + item.tokens - 1;
  const int first = args.window > 0 && item.first_position >= args.window
                        ? item.first_position - args.window + 1
                        : 0;

  LORAD_SHARED(Vec4[2 * kKeyTiles][kWarp], queries);
  LORAD_SHARED(const std::byte* [kAttendWarps][kHalves], blocks);  // keys of each half
  LORAD_SHARED(const std::byte* [kAttendWarps][kHalves], scales);
  LORAD_SHARED(float[2][kChunkBlocks][kItemRows], highest);  // by the parity of the chunk
  LORAD_SHARED(Vec4[kHalves][kWarp], weights);
  LORAD_SHARED(Vec2[kChunkBlocks][kWarp], sums);

  float total_reference[2] = {kUnseen, kUnseen};
  float total_sum[2] = {0, 0};
  float total[kValueTiles][2][4] = {};

  for (int chunk = item.chunk_begin; chunk < item.chunk_end; ++chunk) {
    // Halves [begin, end) of the chunk are seen by some row. Each lane looks up one.
    const int half0 = chunk * kHalves;
    const int begin = first / kBlockTokens > half0 ? first / kBlockTokens - half0 : 0;
    const int end =
        last / kBlockTokens < half0 + kHalves ? last / kBlockTokens + 1 - half0 : kHalves;
    if (Lane() < kHalves) {
      const int half = Lane() < begin ? begin : Lane() >= end ? end - 1 : Lane();
      const KeyPlace place = PlaceOf(args, item, half0 + half);
      blocks[warp][Lane()] = place.head + place.block * block_bytes;
      if constexpr (kScaled) scales[warp][Lane()] = place.head + place.block * kBlockTokens * 4;
    }
    SyncWarp();
    const auto is_seen = [&](int half) { return half >= begin && half < end; };

    // --- Scores of this warp's blocks, 8 keys at a time ---
    const auto half_of = [&](int tile) {
      return 2 * (warp + kAttendWarps * (tile / 4)) + tile % 4 / 2;
    };
    Part keys[kKeysAhead][kKeyTiles];
    const auto load_keys = [&](int tile, Part(&to)[kKeyTiles]) {
      const int half = half_of(tile);
      LORAD_UNROLL
      for (int c = 0; c < kKeyTiles; ++c) to[c] = {};
      if (!is_seen(half)) return;
      const std::byte* from =
          blocks[warp][half] + args.layout.Keys() + tile % 2 * key_tiles * TileT::kBytes;
      LORAD_UNROLL
      for (int c = 0; c < kKeyTiles; ++c) {
        if (kExact || c < key_tiles) to[c] = TileT::LoadOnce(from + c * TileT::kBytes);
      }
    };
    LORAD_UNROLL
    for (int tile = 0; tile < kKeysAhead; ++tile) load_keys(tile, keys[tile]);

    [[maybe_unused]] BlockScales value_scales[kOwn] = {};
    [[maybe_unused]] BlockScales key_scales[kOwn] = {};
    if constexpr (kScaled) {
      LORAD_UNROLL
      for (int own = 0; own < kOwn; ++own) {
        LORAD_UNROLL
        for (int h = 0; h < 2; ++h) {
          const int half = half_of(4 * own + 2 * h);
          if (!is_seen(half)) continue;
          const std::byte* from = scales[warp][half];
          LoadScales(key_scales[own], h, from + args.layout.KeyScales());
          LoadScales(value_scales[own], h, from + args.layout.ValueScales());
        }
        // The scales of keys that were never written may be NaN.
        for (int i = 0; i < 8; ++i) {
          const int key = chunk * kKeyChunk + (warp + kAttendWarps * own) * kKeyBlock + i / 2 * 8 +
                          Lane() % 4 * 2 + i % 2;
          if (key < first || key > last) value_scales[own].v[i / 2][i % 2] = 0.0f;
        }
      }
    }
    if (chunk == item.chunk_begin) {
      for (int i = Thread(); i < kKeyTiles * kWarp; i += kAttendThreads) {
        const int lane = i % kWarp;
        const QueryPair pair = QueriesFor(args, RowOf(item, args.group, lane / 4),
                                          RowOf(item, args.group, lane / 4 + 8), i / kWarp, lane);
        queries[2 * (i / kWarp)][lane] = pair.first;
        queries[2 * (i / kWarp) + 1][lane] = pair.second;
      }
      SyncBlock();
    }

    float(&tops)[kChunkBlocks][kItemRows] = highest[chunk % 2];
    float scores[kOwn][4][4] = {};
    LORAD_UNROLL
    for (int own = 0; own < kOwn; ++own) {
      LORAD_UNROLL
      for (int n = 0; n < 4; n += kTogether) {
        const int tile = 4 * own + n;
        if (is_seen(half_of(tile))) {
          LORAD_UNROLL
          for (int c = 0; c < kKeyTiles; ++c) {
            if (!kExact && c >= key_tiles) continue;
            const Vec4 q0 = queries[2 * c][Lane()];
            const Vec4 q1 = queries[2 * c + 1][Lane()];
            for (int i = 0; i < kTogether; ++i) {
              AddScores(scores[own][n + i], q0, q1, TileT::Bf16(keys[(tile + i) % kKeysAhead][c]));
            }
          }
        }
        for (int i = 0; i < kTogether; ++i) {
          const int next = tile + i + kKeysAhead;
          if (next < 4 * kOwn) load_keys(next, keys[next % kKeysAhead]);
        }
      }
      const int of_chunk = warp + kAttendWarps * own;
      if constexpr (kScaled) ScaleScores(scores[own], key_scales[own]);
      HideUnseen(scores[own], chunk * kKeyChunk + of_chunk * kKeyBlock, positions, args.window);
      float top[2];
      FindHighest(scores[own], args.scale_log2, top);
      if (Lane() % 4 == 0) {
        tops[of_chunk][g] = top[0];
        tops[of_chunk][g + 8] = top[1];
      }
    }

    // --- The first values are on their way while weights are computed ---
    Part values[kValuesAhead][kValueTiles];
    // (What is not loaded is set all the same, or it would be kept from one chunk to the next.)
    const auto load_values = [&](int half, Part(&to)[kValueTiles]) {
      LORAD_UNROLL
      for (int i = 0; i < kValueTiles; ++i) to[i] = {};
      if (!is_seen(half)) return;
      const std::byte* from = blocks[warp][half % kHalves] + args.layout.Values();
      LORAD_UNROLL
      for (int i = 0; i < kValueTiles; ++i) {
        const int tile = warp + kAttendWarps * i;
        if (kExact || tile < value_tiles) to[i] = TileT::LoadOnce(from + tile * TileT::kBytes);
      }
    };
    const int even_begin = begin / 2 * 2;
    LORAD_UNROLL
    for (int i = 0; i < kValuesAhead; ++i) load_values(even_begin + i, values[i]);
    SyncBlock();

    float own_reference[kOwn][2];
    {
      float moved[2] = {kUnseen, kUnseen};
      LORAD_UNROLL
      for (int of_chunk = 0; of_chunk < kChunkBlocks; ++of_chunk) {
        for (int r = 0; r < 2; ++r) {
          MoveReference(moved[r], tops[of_chunk][g + 8 * r]);
          const bool is_own = of_chunk % kAttendWarps == warp;
          if (is_own) own_reference[of_chunk / kAttendWarps][r] = moved[r];
        }
      }
    }
    LORAD_UNROLL
    for (int own = 0; own < kOwn; ++own) {
      uint32_t fragments[2][4];
      float sum[2];
      Weigh(scores[own], args.scale_log2, own_reference[own],
            kScaled ? &value_scales[own] : nullptr, fragments, sum);
      const int of_chunk = warp + kAttendWarps * own;
      for (int h = 0; h < 2; ++h) {
        const uint32_t(&f)[4] = fragments[h];
        weights[2 * of_chunk + h][Lane()] = {f[0], f[1], f[2], f[3]};
      }
      sums[of_chunk][Lane()] = {FloatToBits(sum[0]), FloatToBits(sum[1])};
    }
    SyncBlock();

    // --- Weighted values, this warp's dims over all blocks in order ---
    float reference[2] = {kUnseen, kUnseen};
    float sum[2] = {0, 0};
    float out[kValueTiles][2][4] = {};
    for (int base = even_begin; base < end; base += kValuesAhead) {
      LORAD_UNROLL
      for (int i = 0; i < kValuesAhead; ++i) {
        const int half = base + i;
        if (half >= end) continue;
        if (i % 2 == 0) {
          const Vec2 add = sums[half / 2][Lane()];
          const float factor[2] = {MoveReference(reference[0], tops[half / 2][g]),
                                   MoveReference(reference[1], tops[half / 2][g + 8])};
          sum[0] = fmaf(sum[0], factor[0], BitsToFloat(add.x));
          sum[1] = fmaf(sum[1], factor[1], BitsToFloat(add.y));
          LORAD_UNROLL
          for (int t = 0; t < kValueTiles; ++t) {
            for (int j = 0; j < 8; ++j) out[t][j / 4][j % 4] *= factor[j % 4 / 2];
          }
        }
        if (half >= begin) {
          const Vec4 w = weights[half][Lane()];
          const uint32_t fragment[4] = {w.x, w.y, w.z, w.w};
          const ValueMask mask = ValuesWithin((half0 + half) * kBlockTokens, first, last, Lane());
          LORAD_UNROLL
          for (int t = 0; t < kValueTiles; ++t) {
            if (kExact || warp + kAttendWarps * t < value_tiles) {
              Vec4 v = TileT::Bf16(values[i][t]);
              if constexpr (!kScaled) v = Masked(v, mask);
              AddValues(out[t], fragment, v);
            }
          }
        }
        load_values(half + kValuesAhead, values[i]);
      }
    }
    for (int r = 0; r < 2; ++r) {
      const MergeFactors factors = MoveTotal(total_reference[r], reference[r]);
      total_sum[r] = Merge(total_sum[r], RowSum(sum[r]), factors);
      LORAD_UNROLL
      for (int t = 0; t < kValueTiles; ++t) {
        for (int j = 0; j < 4; ++j) {
          float& value = total[t][j / 2][2 * r + j % 2];
          value = Merge(value, out[t][j / 2][2 * r + j % 2], factors);
        }
      }
    }
  }

  // Found again rather than kept in registers all the time.
  const QueryRow rows[2] = {RowOf(item, args.group, g), RowOf(item, args.group, g + 8)};
  if (item.partial >= 0 && warp == 0 && Lane() % 4 == 0) {
    for (int r = 0; r < 2; ++r) {
      if (!rows[r].real) continue;
      StorePartialState(args, item.partial, g + 8 * r, total_reference[r], total_sum[r]);
    }
  }
  const float inverse[2] = {1.0f / total_sum[0], 1.0f / total_sum[1]};
  LORAD_UNROLL
  for (int t = 0; t < kValueTiles; ++t) {
    for (int n = 0; n < 2; ++n) {
      const int dim = (warp + kAttendWarps * t) * kValueTileDims + 8 * n + Lane() % 4 * 2;
      StoreValues(args, rows, item.partial, dim, total[t][n], inverse);
    }
  }
}

template <int kDim, bool kExact, KvFormat kFormat>
KernelRef Ref(const char* name) {
  return MakeKernel(name, &AttendItem<kDim, kExact, kFormat>, kAttendThreads);
}
const KernelRef kItem64 = Ref<64, true, KvFormat::kBf16>("attend_item_64");
const KernelRef kItem128 = Ref<128, true, KvFormat::kBf16>("attend_item_128");
const KernelRef kItemTo128 = Ref<128, false, KvFormat::kBf16>("attend_item_to_128");
const KernelRef kItemTo256 = Ref<256, false, KvFormat::kBf16>("attend_item_to_256");
const KernelRef kItemTo128Fp8 = Ref<128, false, KvFormat::kFp8>("attend_item_to_128_fp8");
const KernelRef kItemTo256Fp8 = Ref<256, false, KvFormat::kFp8>("attend_item_to_256_fp8");

}  // namespace

const KernelRef& ItemKernel(int head_dim, KvFormat format) {
  if (format == KvFormat::kFp8) return head_dim <= 128 ? kItemTo128Fp8 : kItemTo256Fp8;
  if (head_dim == 64) return kItem64;
  if (head_dim == 128) return kItem128;
  return head_dim < 128 ? kItemTo128 : kItemTo256;
}

std::vector<KernelRef> ItemKernels() {
  return {kItem64, kItem128, kItemTo128, kItemTo256, kItemTo128Fp8, kItemTo256Fp8};
}

}  // namespace lorad::kernels::cuda

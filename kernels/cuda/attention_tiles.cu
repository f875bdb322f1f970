// Attention of up to 64 query rows: prefill. A block has one tile, each of its four warps 16 rows
// over all keys. Keys and values go through shared memory in blocks of 32 keys: while scores are
// computed the block's values arrive, while values are added the next block's keys do. A page
// holds fragments in the order of lanes, so a block is copied as it is, and read without conflicts.
//
// Limit: reading shared memory. 16 rows a warp means that each word of keys or values feeds one
// product: 16 KiB a block of keys, warp and 128 dims against 64 products, 128 and (on sm_80) 128
// cycles of a multiprocessor. Sums of earlier chunks lie in shared memory too, read and written
// once in 256 keys (an eighth more). In flight: 8 KiB a block of threads at 128 dims, 24 KiB a
// multiprocessor of three blocks, from L2, where the tiles of a sequence meet.
#include "kernels/cuda/attention_core.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/gpu.h"

namespace lorad::kernels::cuda {
namespace {

// Above, the fragments of the queries lie in shared memory.
constexpr int kQueriesInRegisters = 128;

// Dynamic shared memory: two halves of keys, two of values, then for each warp
// [kDim / 8][kWarp] Vec4 sums of earlier chunks, then its query fragments if they are there.
constexpr size_t SharedBytes(int kernel_dim, int block_bytes) {
  const size_t sums = size_t(kAttendWarps) * size_t(kernel_dim / 8) * kWarp * sizeof(Vec4);
  return 4 * size_t(block_bytes) + (kernel_dim > kQueriesInRegisters ? sums + sums / 2 : sums);
}

// kExact: head_dim is kDim.
template <int kDim, bool kExact, KvFormat kFormat>
LORAD_KERNEL(kAttendThreads, kDim <= 128 ? 3 : 1)
void AttendTile(AttendArgs args) {
  using TileT = Tile<kFormat>;
  constexpr bool kScaled = kFormat == KvFormat::kFp8;
  constexpr int kKeyTiles = kDim / kKeyTileDims;
  constexpr int kValueTiles = kDim / kValueTileDims;
  constexpr bool kHoldQueries = kDim <= kQueriesInRegisters;

  if (BlockX() >= *args.items.count) return;
  const AttentionItem item = args.items.items[BlockX()];
  const int key_tiles = kExact ? kKeyTiles : args.layout.padded_dim / kKeyTileDims;
  const int value_tiles =
      kExact ? kValueTiles : (args.head_dim + kValueTileDims - 1) / kValueTileDims;
  const int block_bytes =
      kExact ? kDim * kBlockTokens * TileT::kElementBytes : args.layout.BlockBytes();
  const int g = Lane() / 4;
  const int warp = Shuffle(Warp(), 0);  // tells the compiler that it is the same in all lanes
  const int row0 = warp * kItemRows;
  const bool active = row0 < item.tokens * item.heads;
  const int positions[2] = {RowOf(item, args.group, row0 + g).position,
                            RowOf(item, args.group, row0 + g + 8).position};
  const auto first_seen = [&](int position) {
    return args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
  };
  // Keys that some row of the tile, and of this warp, sees.
  const int last = item.first_position + item.tokens - 1;
  const int first = first_seen(item.first_position);
  // Blocks of which this warp's rows see something, and those that all of them see whole.
  const int warp_low = RowOf(item, args.group, row0).position;
  const int warp_high = RowOf(item, args.group, row0 + kItemRows - 1).position;
  const int sees_begin = first_seen(warp_low) / kKeyBlock;
  const int sees_end = active ? warp_high / kKeyBlock + 1 : 0;
  const int whole_begin = (first_seen(warp_high) + kKeyBlock - 1) / kKeyBlock;
  const int whole_end = (warp_low + 1) / kKeyBlock;

  std::byte* const keys = DynamicShared();
  std::byte* const values = keys + 2 * block_bytes;
  Vec4* const all_totals = reinterpret_cast<Vec4*>(values + 2 * block_bytes);
  Vec4* const totals = all_totals + (warp * (kDim / 8)) * kWarp + Lane();
  Vec4* const shared_queries =
      all_totals + (kAttendWarps * (kDim / 8) + warp * (kDim / 16)) * kWarp + Lane();

  // Copies the keys or the values of block `b` of the sequence; not those that no row sees.
  const auto stage = [&](std::byte* to, int offset, int b) {
    for (int h = 0; h < 2; ++h) {
      const int n = 2 * b + h;
      if (n * kBlockTokens > last || n * kBlockTokens + kBlockTokens <= first) continue;
      const KeyPlace place = PlaceOf(args, item, n);
      const std::byte* from = place.head + offset + place.block * block_bytes;
      for (int step = 0; step < block_bytes; step += kAttendThreads * 16) {
        const int i = step + Thread() * 16;
        if (i < block_bytes) CopyAsync16(to + h * block_bytes + i, from + i);
      }
    }
    CopyAsyncCommit();
  };

  const int begin = item.chunk_begin * kChunkBlocks > first / kKeyBlock
                        ? item.chunk_begin * kChunkBlocks
                        : first / kKeyBlock;
  const int end = item.chunk_end * kChunkBlocks <= last / kKeyBlock ? item.chunk_end * kChunkBlocks
                                                                    : last / kKeyBlock + 1;
  stage(keys, args.layout.Keys(), begin);

  Vec4 held_queries[kHoldQueries ? 2 * kKeyTiles : 1];
  LORAD_UNROLL
  for (int c = 0; c < kKeyTiles; ++c) {
    if (!kExact && c >= key_tiles) continue;
    const QueryPair pair = QueriesFor(args, RowOf(item, args.group, row0 + g),
                                      RowOf(item, args.group, row0 + g + 8), c, Lane());
    if constexpr (kHoldQueries) {
      held_queries[2 * c] = pair.first;
      held_queries[2 * c + 1] = pair.second;
    } else {
      shared_queries[2 * c * kWarp] = pair.first;
      shared_queries[(2 * c + 1) * kWarp] = pair.second;
    }
  }
  const auto query = [&](int step) {
    if constexpr (kHoldQueries) {
      return held_queries[step];
    } else {
      return shared_queries[step * kWarp];
    }
  };

  float total_reference[2] = {kUnseen, kUnseen};
  float total_sum[2] = {0, 0};
  float reference[2] = {kUnseen, kUnseen};
  float sum[2] = {0, 0};
  float out[kValueTiles][2][4] = {};
  for (int b = begin; b < end; ++b) {
    const int start = b * kKeyBlock;
    CopyAsyncWait<0>();
    SyncBlock();  // the keys are here, and nobody needs the values before
    stage(values, args.layout.Values(), b);

    const bool sees = b >= sees_begin && b < sees_end;
    uint32_t weights[2][4] = {};
    if (sees) {
      float scores[4][4] = {};
      LORAD_UNROLL
      for (int c = 0; c < kKeyTiles; ++c) {
        if (!kExact && c >= key_tiles) continue;
        Vec4 of_tile[4];
        for (int n = 0; n < 4; ++n) {
          of_tile[n] = TileT::Bf16(
              TileT::Load(keys + n / 2 * block_bytes + (n % 2 * key_tiles + c) * TileT::kBytes));
        }
        const Vec4 q0 = query(2 * c);
        const Vec4 q1 = query(2 * c + 1);
        for (int n = 0; n < 4; ++n) AddScores(scores[n], q0, q1, of_tile[n]);
      }
      [[maybe_unused]] BlockScales value_scales = {};
      if constexpr (kScaled) {
        BlockScales key_scales = {};
        for (int h = 0; h < 2; ++h) {
          const int n = 2 * b + h;
          if (n * kBlockTokens > last || n * kBlockTokens + kBlockTokens <= first) continue;
          const KeyPlace place = PlaceOf(args, item, n);
          const std::byte* from = place.head + place.block * kBlockTokens * 4;
          LoadScales(key_scales, h, from + args.layout.KeyScales());
          LoadScales(value_scales, h, from + args.layout.ValueScales());
        }
        // The scales of keys that were never written may be NaN.
        for (int i = 0; i < 8; ++i) {
          const int key = start + i / 2 * 8 + Lane() % 4 * 2 + i % 2;
          if (key < first || key > last) value_scales.v[i / 2][i % 2] = 0.0f;
        }
        ScaleScores(scores, key_scales);
      }
      if (b < whole_begin || b >= whole_end) HideUnseen(scores, start, positions, args.window);
      float top[2];
      FindHighest(scores, args.scale_log2, top);
      const float factor[2] = {MoveReference(reference[0], top[0]),
                               MoveReference(reference[1], top[1])};
      float add[2];
      Weigh(scores, args.scale_log2, reference, kScaled ? &value_scales : nullptr, weights, add);
      sum[0] = fmaf(sum[0], factor[0], add[0]);
      sum[1] = fmaf(sum[1], factor[1], add[1]);
      if (Any(factor[0] != 1.0f || factor[1] != 1.0f)) {
        LORAD_UNROLL
        for (int t = 0; t < kValueTiles; ++t) {
          for (int j = 0; j < 8; ++j) out[t][j / 4][j % 4] *= factor[j % 4 / 2];
        }
      }
    }

    CopyAsyncWait<0>();
    SyncBlock();  // the values are here, and nobody needs the keys any more
    if (b + 1 < end) stage(keys, args.layout.Keys(), b + 1);
    if (!kScaled && (start < first || start + kKeyBlock - 1 > last)) {
      // What was never written may be NaN, which a weight of zero does not make zero. (Any byte is
      // a finite number in fp8.)
      const int lanes = args.layout.padded_dim / kValueTileDims * kWarp;
      for (int i = Thread(); i < 2 * lanes; i += kAttendThreads) {
        std::byte* const at = values + i * 16;
        const ValueMask mask =
            ValuesWithin(start + i / lanes * kBlockTokens, first, last, i % kWarp);
        Store16(at, Masked(Load16(at), mask));
      }
      SyncBlock();
    }
    if (sees) {
      LORAD_UNROLL
      for (int t = 0; t < kValueTiles; ++t) {
        if (!kExact && t >= value_tiles) continue;
        for (int h = 0; h < 2; ++h) {
          AddValues(out[t], weights[h],
                    TileT::Bf16(TileT::Load(values + h * block_bytes + t * TileT::kBytes)));
        }
      }
    }

    if ((b + 1) % kChunkBlocks != 0 && b + 1 != end) continue;
    // --- The end of a chunk ---
    const bool is_first = b < (begin / kChunkBlocks + 1) * kChunkBlocks;
    MergeFactors factors[2];
    for (int r = 0; r < 2; ++r) {
      factors[r] = MoveTotal(total_reference[r], reference[r]);
      total_sum[r] = Merge(total_sum[r], RowSum(sum[r]), factors[r]);
      reference[r] = kUnseen;
      sum[r] = 0;
    }
    LORAD_UNROLL
    for (int t = 0; t < kValueTiles; ++t) {
      if (!kExact && t >= value_tiles) continue;
      for (int n = 0; n < 2; ++n) {
        float(&v)[4] = out[t][n];
        Vec4* const at = totals + (2 * t + n) * kWarp;
        const Vec4 before = is_first ? Vec4{0, 0, 0, 0} : Load16(at);
        v[0] = Merge(BitsToFloat(before.x), v[0], factors[0]);
        v[1] = Merge(BitsToFloat(before.y), v[1], factors[0]);
        v[2] = Merge(BitsToFloat(before.z), v[2], factors[1]);
        v[3] = Merge(BitsToFloat(before.w), v[3], factors[1]);
        if (b + 1 == end) continue;
        Store16(at, {FloatToBits(v[0]), FloatToBits(v[1]), FloatToBits(v[2]), FloatToBits(v[3])});
        v[0] = v[1] = v[2] = v[3] = 0.0f;
      }
    }
  }

  if (!active) return;
  // Read again rather than kept in registers all the time.
  const AttentionItem written = args.items.items[BlockX()];
  const QueryRow rows[2] = {RowOf(written, args.group, row0 + g),
                            RowOf(written, args.group, row0 + g + 8)};
  const int partial = written.partial < 0 ? -1 : written.partial + warp;
  if (partial >= 0 && Lane() % 4 == 0) {
    for (int r = 0; r < 2; ++r) {
      if (!rows[r].real) continue;
      StorePartialState(args, partial, g + 8 * r, total_reference[r], total_sum[r]);
    }
  }
  const float inverse[2] = {1.0f / total_sum[0], 1.0f / total_sum[1]};
  LORAD_UNROLL
  for (int t = 0; t < kValueTiles; ++t) {
    for (int n = 0; n < 2; ++n) {
      const int dim = t * kValueTileDims + 8 * n + Lane() % 4 * 2;
      StoreValues(args, rows, partial, dim, out[t][n], inverse);
    }
  }
}

template <int kDim, bool kExact, KvFormat kFormat>
KernelRef Ref(const char* name) {
  return MakeKernel(name, &AttendTile<kDim, kExact, kFormat>, kAttendThreads);
}
const KernelRef kTile64 = Ref<64, true, KvFormat::kBf16>("attend_tile_64");
const KernelRef kTile128 = Ref<128, true, KvFormat::kBf16>("attend_tile_128");
const KernelRef kTileTo128 = Ref<128, false, KvFormat::kBf16>("attend_tile_to_128");
const KernelRef kTileTo256 = Ref<256, false, KvFormat::kBf16>("attend_tile_to_256");
const KernelRef kTileTo128Fp8 = Ref<128, false, KvFormat::kFp8>("attend_tile_to_128_fp8");
const KernelRef kTileTo256Fp8 = Ref<256, false, KvFormat::kFp8>("attend_tile_to_256_fp8");

}  // namespace

const KernelRef& TileKernel(int head_dim, KvFormat format) {
  if (format == KvFormat::kFp8) return head_dim <= 128 ? kTileTo128Fp8 : kTileTo256Fp8;
  if (head_dim == 64) return kTile64;
  if (head_dim == 128) return kTile128;
  return head_dim < 128 ? kTileTo128 : kTileTo256;
}

size_t TileSharedBytes(int head_dim, const KvLayout& layout) {
  const bool exact_64 = head_dim == 64 && !layout.scaled();
  return SharedBytes(exact_64 ? 64 : head_dim <= 128 ? 128 : 256, layout.BlockBytes());
}

std::vector<KernelRef> TileKernels() {
  return {kTile64, kTile128, kTileTo128, kTileTo256, kTileTo128Fp8, kTileTo256Fp8};
}

}  // namespace lorad::kernels::cuda

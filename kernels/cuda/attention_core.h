// What the attention kernels share: which query rows an item has, how a lane reads tiles of keys
// and values, and the arithmetic of the softmax.
//
// A row's result is defined step by step, and every kernel takes these steps in this order, so that
// it does not matter which kernel computes a row, nor what else is computed with it:
//
//   score      one chain of mma.m16n8k16 over the dims, in fp32; those of keys that the row does
//              not see become -inf
//   block      kKeyBlock keys by absolute position; its highest score may move the row's reference
//              (MoveReference), weights are 2^(score - reference), and the sum and the weighted
//              values so far, scaled if the reference moved, get the block's added
//   chunk      kKeyChunk keys, blocks in order, from an empty state
//   row        chunks in order (MergeFactors), from an empty state
//
// A block or chunk of which a row sees nothing changes no bit of its state, so it may be visited
// for the sake of other rows or left out. Products and sums that a compiler could fuse are written
// as fmaf where it would matter.
//
// The softmax is taken to the base of 2, with the scale in `scale_log2`.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kv_layout.h"

namespace lorad::kernels::cuda {

inline constexpr int kAttendThreads = 128;
inline constexpr int kAttendWarps = kAttendThreads / kWarp;
inline constexpr int kKeyBlock = 32;
inline constexpr int kChunkBlocks = kKeyChunk / kKeyBlock;
inline constexpr int kHalves = kKeyChunk / kBlockTokens;  // blocks of the page layout in a chunk
inline constexpr float kUnseen = -std::numeric_limits<float>::infinity();

// Division by a number that is the same for a whole launch, as one product.
// (n * reciprocal) >> 32 is n / divisor as long as n * divisor < 2^32: the reciprocal is less than
// 2^-32 too high for each unit, by divisor * 2^-32 at most.
struct Divisor {
  int divisor;
  uint32_t reciprocal;  // 2^32 / divisor rounded up; 0 for a divisor of 1
};
inline Divisor DivisorOf(int divisor) {
  return {divisor, divisor == 1 ? 0
                                : uint32_t(((uint64_t{1} << 32) + uint64_t(divisor) - 1) /
                                           uint64_t(divisor))};
}
LORAD_DEVICE int Divide(int n, const Divisor& by) {
  if (by.reciprocal == 0) return n;
  return static_cast<int>(uint64_t{uint32_t(n)} * by.reciprocal >> 32);
}

struct AttendArgs {
  const uint16_t* qkv;
  uint16_t* out;
  const uint32_t* pages;
  ListView<AttentionItem> items;
  float* partials;
  const std::byte* layer;  // of page 0
  size_t page_bytes;
  KvLayout layout;
  Divisor page_blocks;  // of kBlockTokens
  int qkv_stride;
  int out_stride;
  int head_dim;
  int group;  // query heads of a KV head
  int window;
  int partial_floats;
  float scale_log2;  // > 0
};

// --- Query rows ---

// Row `index` of an item: tokens in order, the heads of a token together.
struct QueryRow {
  int row;       // of the batch
  int head;      // of all query heads
  int position;  // of the token
  bool real;     // otherwise only fills up; the other fields are those of some real row
};
LORAD_DEVICE QueryRow RowOf(const AttentionItem& item, int group, int index) {
  const int token = index / item.heads;
  const bool real = token < item.tokens;
  const int known = real ? token : item.tokens - 1;
  return {item.first_row + known,
          item.kv_head * group + item.head_begin + index - token * item.heads,
          item.first_position + known, real};
}

// Dims dim .. dim + 7 of a query, zeros beyond the head and for a row that is not real.
LORAD_DEVICE Vec4 QueryOctet(const AttendArgs& args, const QueryRow& row, int dim) {
  if (!row.real || dim >= args.head_dim) return {0, 0, 0, 0};
  const uint16_t* from =
      args.qkv + size_t(row.row) * size_t(args.qkv_stride) + row.head * args.head_dim;
  if (args.head_dim % 8 == 0) return Load16(from + dim);
  uint32_t words[4];
  for (int i = 0; i < 4; ++i) {  // head_dim is even
    const int at = dim + 2 * i;
    words[i] = at < args.head_dim ? from[at] | uint32_t{from[at + 1]} << 16 : 0;
  }
  return {words[0], words[1], words[2], words[3]};
}

// The A fragments of two steps of 16 dims, out of rows g and g + 8 of the dims that a key tile has.
struct QueryPair {
  Vec4 first, second;
};
LORAD_DEVICE QueryPair QueriesFor(const AttendArgs& args, const QueryRow& g, const QueryRow& g8,
                                  int key_tile, int lane) {
  const int dim = key_tile * kKeyTileDims + lane % 4 * 8;
  const Vec4 a = QueryOctet(args, g, dim);
  const Vec4 b = QueryOctet(args, g8, dim);
  return {{a.x, b.x, a.y, b.y}, {a.z, b.z, a.w, b.w}};
}

// --- Tiles of keys and values ---

template <KvFormat kFormat>
struct Tile;
template <>
struct Tile<KvFormat::kBf16> {
  using Part = Vec4;  // a lane's
  static constexpr int kElementBytes = 2;
  static constexpr int kBytes = kTileElements * kElementBytes;
  static LORAD_DEVICE Part Load(const std::byte* tile) { return Load16(tile + 16 * Lane()); }
  static LORAD_DEVICE Part LoadOnce(const std::byte* tile) {
    return LoadOnce16(tile + 16 * Lane());
  }
  static LORAD_DEVICE Vec4 Bf16(Part part) { return part; }
};
template <>
struct Tile<KvFormat::kFp8> {
  using Part = Vec2;
  static constexpr int kElementBytes = 1;
  static constexpr int kBytes = kTileElements * kElementBytes;
  static LORAD_DEVICE Part Load(const std::byte* tile) { return Load8(tile + 8 * Lane()); }
  static LORAD_DEVICE Part LoadOnce(const std::byte* tile) { return LoadOnce8(tile + 8 * Lane()); }
  static LORAD_DEVICE Vec4 Bf16(Part part) {
    return {Fp8PairToBf16(part.x), Fp8PairToBf16(part.x >> 16), Fp8PairToBf16(part.y),
            Fp8PairToBf16(part.y >> 16)};
  }
};

// scores += queries keys over the 32 dims of a key tile.
LORAD_DEVICE void AddScores(float (&scores)[4], Vec4 first, Vec4 second, Vec4 keys) {
  const uint32_t a[4] = {first.x, first.y, first.z, first.w};
  const uint32_t b[4] = {second.x, second.y, second.z, second.w};
  Mma16816(scores, a, keys.x, keys.y);
  Mma16816(scores, b, keys.z, keys.w);
}
// out[n] += weights values, n: the 8 lower and the 8 upper dims of a value tile.
LORAD_DEVICE void AddValues(float (&out)[2][4], const uint32_t (&weights)[4], Vec4 values) {
  Mma16816(out[0], weights, values.x, values.y);
  Mma16816(out[1], weights, values.z, values.w);
}

// The head of the page that holds 16 keys, number `n` of the sequence, and which block of it.
struct KeyPlace {
  const std::byte* head;
  int block;
};
LORAD_DEVICE KeyPlace PlaceOf(const AttendArgs& args, const AttentionItem& item, int n) {
  const int page = Divide(n, args.page_blocks);
  return {args.layer + size_t(args.pages[item.first_page + page]) * args.page_bytes +
              args.layout.Head(0, item.kv_head),
          n - page * args.page_blocks.divisor};
}

// Which of a lane's four keys of a value tile lie within [first, last], as masks of two words of
// two elements; `start`: position of the tile's first key.
struct ValueMask {
  uint32_t low, high;
};
LORAD_DEVICE ValueMask ValuesWithin(int start, int first, int last, int lane) {
  const int key = start + lane % 4 * 2;
  const auto seen = [&](int k) { return k >= first && k <= last; };
  return {(seen(key) ? 0xffffu : 0u) | (seen(key + 1) ? 0xffff0000u : 0u),
          (seen(key + 8) ? 0xffffu : 0u) | (seen(key + 9) ? 0xffff0000u : 0u)};
}
LORAD_DEVICE Vec4 Masked(Vec4 values, ValueMask mask) {
  return {values.x & mask.low, values.y & mask.high, values.z & mask.low, values.w & mask.high};
}

// fp32 scales of a lane's keys of a block: of tile n, keys 8n + 2t and the next.
struct BlockScales {
  float v[4][2];
};
// Of 16 keys, into scales.v[2 * half ...]. `from`: of the first.
LORAD_DEVICE void LoadScales(BlockScales& scales, int half, const std::byte* from) {
  for (int n = 0; n < 2; ++n) {
    const Vec2 two = Load8(from + (8 * n + Lane() % 4 * 2) * 4);
    scales.v[2 * half + n][0] = BitsToFloat(two.x);
    scales.v[2 * half + n][1] = BitsToFloat(two.y);
  }
}

// --- The softmax of a lane's two rows, g and g + 8 ---
// scores[n]: keys 8n + 2t and the next, of row g, then of row g + 8.

LORAD_DEVICE void ScaleScores(float (&scores)[4][4], const BlockScales& scales) {
  for (int n = 0; n < 4; ++n) {
    for (int i = 0; i < 4; ++i) scores[n][i] *= scales.v[n][i % 2];
  }
}
// `start`: position of the block's first key; `rows`: positions of the rows.
LORAD_DEVICE void HideUnseen(float (&scores)[4][4], int start, const int (&rows)[2], int window) {
  for (int n = 0; n < 4; ++n) {
    for (int i = 0; i < 4; ++i) {
      const int key = start + 8 * n + Lane() % 4 * 2 + i % 2;
      const int row = rows[i / 2];
      if (key > row || (window > 0 && key <= row - window)) scores[n][i] = kUnseen;
    }
  }
}
// The highest score of each row over the block, scaled; the same in the four lanes of a row.
// Collective.
LORAD_DEVICE void FindHighest(const float (&scores)[4][4], float scale_log2, float (&highest)[2]) {
  for (int r = 0; r < 2; ++r) {
    float top = kUnseen;
    for (int n = 0; n < 4; ++n) top = fmaxf(top, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
    top = fmaxf(top, ShuffleXor(top, 1));
    top = fmaxf(top, ShuffleXor(top, 2));
    highest[r] = fmaf(top, scale_log2, 0.0f);
  }
}
// Moves a reference to a block's highest score when that is more than 2^kSlack times as much (so
// that weights stay below 2^kSlack and the state is seldom scaled). Returns what the state must be
// multiplied with: 1 if the reference stays.
LORAD_DEVICE float MoveReference(float& reference, float highest) {
  constexpr float kSlack = 8.0f;
  if (!(highest > reference + kSlack)) return 1.0f;
  const float factor = Exp2(reference - highest);
  reference = highest;
  return factor;
}
// What is subtracted from scores: as long as a row has seen nothing, all its scores are -inf.
LORAD_DEVICE float Base(float reference) { return reference == kUnseen ? 0.0f : reference; }

// The weights of a block as the A fragments of its two halves, and what each row's sum gets from
// this lane. `value_scales` (or null) multiply the weights but not the sums.
LORAD_DEVICE void Weigh(const float (&scores)[4][4], float scale_log2, const float (&reference)[2],
                        const BlockScales* value_scales, uint32_t (&weights)[2][4],
                        float (&sums)[2]) {
  for (int r = 0; r < 2; ++r) {
    const float base = Base(reference[r]);
    sums[r] = 0.0f;
    for (int n = 0; n < 4; ++n) {
      float low = Exp2(fmaf(scores[n][2 * r], scale_log2, -base));
      float high = Exp2(fmaf(scores[n][2 * r + 1], scale_log2, -base));
      sums[r] += low + high;
      if (value_scales != nullptr) {
        low *= value_scales->v[n][0];
        high *= value_scales->v[n][1];
      }
      weights[n / 2][n % 2 * 2 + r] = PackBf16(low, high);
    }
  }
}

// The sum over the four lanes of a row, in all of them. Collective.
LORAD_DEVICE float RowSum(float sum) {
  sum += ShuffleXor(sum, 1);
  return sum + ShuffleXor(sum, 2);
}

// Adds a chunk's state to that of the chunks before it: x = x * before + chunk's x * added, for the
// sum and each weighted value, by Merge.
struct MergeFactors {
  float before, added;
};
LORAD_DEVICE MergeFactors MoveTotal(float& reference, float chunk_reference) {
  const float higher = fmaxf(reference, chunk_reference);
  const float base = Base(higher);
  const MergeFactors factors{Exp2(reference - base), Exp2(chunk_reference - base)};
  reference = higher;
  return factors;
}
LORAD_DEVICE float Merge(float total, float chunk, MergeFactors factors) {
  return fmaf(total, factors.before, fmaf(chunk, factors.added, 0.0f));
}

// --- Results ---

// A row's weighted values over its sum. The sign of a zero is lost on purpose: blocks of which a
// row sees nothing may change it.
LORAD_DEVICE float Normalised(float value, float inverse_sum) {
  return fmaf(value, inverse_sum, 0.0f);
}

// A partial: references [kItemRows], sums [kItemRows], weighted values [kItemRows, padded_dim].
LORAD_DEVICE float* PartialValues(const AttendArgs& args, int partial, int row) {
  return args.partials + size_t(partial) * size_t(args.partial_floats) + 2 * kItemRows +
         row * args.layout.padded_dim;
}
LORAD_DEVICE void StorePartialState(const AttendArgs& args, int partial, int row, float reference,
                                    float sum) {
  float* at = args.partials + size_t(partial) * size_t(args.partial_floats);
  at[row] = reference;
  at[kItemRows + row] = sum;
}

// Writes the weighted values of a lane's two rows at dims dim and dim + 1, to a partial (when
// partial >= 0) or divided to the output.
LORAD_DEVICE void StoreValues(const AttendArgs& args, const QueryRow (&rows)[2], int partial,
                              int dim, const float (&values)[4], const float (&inverse)[2]) {
  if (dim >= args.head_dim) return;
  for (int r = 0; r < 2; ++r) {
    if (!rows[r].real) continue;
    const float low = values[2 * r];
    const float high = values[2 * r + 1];
    if (partial >= 0) {
      Store8(PartialValues(args, partial, Lane() / 4 + 8 * r) + dim,
             {FloatToBits(low), FloatToBits(high)});
    } else {
      uint16_t* out = args.out + size_t(rows[r].row) * size_t(args.out_stride) +
                      rows[r].head * args.head_dim + dim;
      *reinterpret_cast<uint32_t*>(out) =
          PackBf16(Normalised(low, inverse[r]), Normalised(high, inverse[r]));
    }
  }
}

}  // namespace lorad::kernels::cuda

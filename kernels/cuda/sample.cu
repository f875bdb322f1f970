// A block draws one token. It reads its row a few times (from L2): for the likeliest token; for
// each of top-k and top-p up to three times, for histograms of the next digit of the logits' bits
// (a radix select), which give the *cut*, the last token that may be drawn in the order "higher
// logit first, then lower id"; and once for the draw, which sums weights by id up to the cut. This
// is the definition of model/sampling.cc, step by step.
//
// Weights are added as integers, in units of 2^-44 of the likeliest token's: the sum of any number
// of tokens is exact in any order, so histograms may use atomics and the result does not depend on
// which thread comes first.
#include <cfloat>
#include <cmath>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/sample_ops.h"
#include "kernels/sample_stream.h"
#include "kernels/sample_weight.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kStretch = 4 * kWarp;  // ids that a warp reads with 16 bytes a lane
constexpr int kAnyId = INT32_MAX;

struct SampleArgs {
  const float* logits;
  int stride;
  int vocab;
  const SampleRow* rows;
  int32_t* tokens;
};

struct Row {
  const float* logits;
  int vocab;
  float max;
  float scale;  // 1 / temperature
};

// Unsigned integers in the order of the floats. NaN counts as -infinity, -0 as 0.
LORAD_DEVICE uint32_t KeyOf(float logit) {
  const float number = logit == logit ? logit + 0.0f : -HUGE_VALF;
  const uint32_t bits = FloatToBits(number);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// A sum of up to 2^18 weights.
using Mass = uint64_t;
constexpr float kMassOfOne = 0x1p44f;

LORAD_DEVICE Mass MassOf(const Row& row, float logit) {
  return static_cast<Mass>(ExpNonPositive((logit - row.max) * row.scale) * kMassOfOne);
}

// The last token that may be drawn.
struct Cut {
  uint32_t key;
  int id;
};
LORAD_DEVICE bool Keeps(const Cut& cut, uint32_t key, int id) {
  return key > cut.key || (key == cut.key && id <= cut.id);
}
LORAD_DEVICE Cut Stricter(const Cut& a, const Cut& b) { return Keeps(b, a.key, a.id) ? a : b; }

// Ids [begin, end) of the row that this warp reads when the block reads [first, last): runs of ids,
// so that a sum over warps in order is a sum by id.
struct Part {
  int begin;
  int end;
};
LORAD_DEVICE int PartIds(int first, int last) {
  const int ids = (last - first + kWarps - 1) / kWarps;
  return (ids + kStretch - 1) / kStretch * kStretch;
}
LORAD_DEVICE Part PartOf(int first, int last, int warp) {
  const int ids = PartIds(first, last);
  const int begin = first + warp * ids;
  return {begin < last ? begin : last, begin + ids < last ? begin + ids : last};
}

// f(id, logit) for the ids of a part, each in one lane, in ascending order within the lane.
template <typename F>
LORAD_DEVICE void ForIds(const Row& row, const Part& part, F&& f) {
  constexpr int kUnroll = 4;
  for (int at = part.begin + Lane() * 4; at < part.end; at += kUnroll * kStretch) {
    Vec4 read[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (at + u * kStretch < part.end) read[u] = Load16(row.logits + at + u * kStretch);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const uint32_t bits[4] = {read[u].x, read[u].y, read[u].z, read[u].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int id = at + u * kStretch + i;
        if (id < part.end) f(id, BitsToFloat(bits[i]));
      }
    }
  }
}

// --- Over the block; all end with a barrier, so their shared memory is free again. ---

// Values of all threads, in every thread.
LORAD_DEVICE Mass BlockSum(Mass value) {
  LORAD_SHARED(Mass[kWarps], sums);
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += ShuffleXor(value, mask);
  if (Lane() == 0) sums[Warp()] = value;
  SyncBlock();
  value = 0;
  for (int warp = 0; warp < kWarps; ++warp) value += sums[warp];
  SyncBlock();
  return value;
}

// The sum of this thread's value and those of all threads before it.
LORAD_DEVICE Mass SumUpTo(Mass value) {
  LORAD_SHARED(Mass[kWarps], sums);
  for (int delta = 1; delta < kWarp; delta *= 2) {
    const Mass before = ShuffleUp(value, delta);
    if (Lane() >= delta) value += before;
  }
  if (Lane() == kWarp - 1) sums[Warp()] = value;
  SyncBlock();
  for (int warp = 0; warp < Warp(); ++warp) value += sums[warp];
  SyncBlock();
  return value;
}

struct Best {
  float logit;
  int id;
};
LORAD_DEVICE Best Better(const Best& a, const Best& b) {
  return b.logit > a.logit || (b.logit == a.logit && b.id < a.id) ? b : a;
}

// The lowest id of the largest logit; id 0 if all are NaN or -infinity. `mine`: the best that this
// thread has read.
LORAD_DEVICE Best Likeliest(const Row& row, Best* mine) {
  LORAD_SHARED(Best[kWarps], of_warps);
  Best best = {-HUGE_VALF, kAnyId};
  ForIds(row, PartOf(0, row.vocab, Warp()), [&](int id, float logit) {
    if (logit > best.logit) best = {logit, id};  // never with NaN
  });
  *mine = best;
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    best = Better(best, {ShuffleXor(best.logit, mask), ShuffleXor(best.id, mask)});
  }
  if (Lane() == 0) of_warps[Warp()] = best;
  SyncBlock();
  for (int warp = 0; warp < kWarps; ++warp) best = Better(best, of_warps[warp]);
  SyncBlock();
  if (best.id == kAnyId) best.id = 0;
  return best;
}

// A key that at least `count` tokens reach, and not many more: the threads form as many groups, and
// it is the least of the groups' greatest logits.
LORAD_DEVICE uint32_t ReachedBy(int count, float mine) {
  LORAD_SHARED(uint32_t[kWarps], of_warps);
  if (count > kThreads) return 0;
  int size = kWarp;
  while (kThreads / size < count) size /= 2;
  for (int mask = 1; mask < size; mask *= 2) mine = fmaxf(mine, ShuffleXor(mine, mask));
  uint32_t least = KeyOf(mine);
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const uint32_t other = ShuffleXor(least, mask);
    least = other < least ? other : least;
  }
  if (Lane() == 0) of_warps[Warp()] = least;
  SyncBlock();
  for (int warp = 0; warp < kWarps; ++warp) {
    least = of_warps[warp] < least ? of_warps[warp] : least;
  }
  SyncBlock();
  return least;
}

// The lowest id up to which, in the order of ids, the sum of value(id, logit) exceeds
// target(sum of all); -1 if none. Narrows the range to a part of a warp until it is one stretch.
template <typename Value, typename Target>
LORAD_DEVICE int FindId(const Row& row, const Value& value, const Target& target) {
  LORAD_SHARED(Mass[kWarps], sums);
  int first = 0, last = row.vocab;
  Mass rest = 0;
  do {
    Mass sum = 0;
    ForIds(row, PartOf(first, last, Warp()), [&](int id, float logit) { sum += value(id, logit); });
    for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
    if (Lane() == 0) sums[Warp()] = sum;
    SyncBlock();
    if (last - first == row.vocab) {
      Mass all = 0;
      for (int warp = 0; warp < kWarps; ++warp) all += sums[warp];
      rest = target(all);
    }
    int warp = 0;
    for (; warp < kWarps - 1 && rest >= sums[warp]; ++warp) rest -= sums[warp];
    SyncBlock();
    const Part part = PartOf(first, last, warp);
    first = part.begin;
    last = part.end;
  } while (last - first > kStretch);
  // All warps alike.
  Mass mine[4] = {}, sum = 0;
  ForIds(row, {first, last}, [&](int id, float logit) {
    const Mass v = value(id, logit);
    for (int i = 0; i < 4; ++i) mine[i] = (id & 3) == i ? v : mine[i];
    sum += v;
  });
  Mass before = sum;
  for (int delta = 1; delta < kWarp; delta *= 2) {
    const Mass other = ShuffleUp(before, delta);
    if (Lane() >= delta) before += other;
  }
  before -= sum;
  int found = -1;
  for (int i = 0; i < 4; ++i) {
    if (before <= rest && rest < before + mine[i]) found = first + Lane() * 4 + i;
    before += mine[i];
  }
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const int other = ShuffleXor(found, mask);
    found = other > found ? other : found;
  }
  return found;
}

constexpr int kDigitBits = 11;
constexpr int kBins = 1 << kDigitBits;

struct Bins {
  unsigned count[kBins];
  unsigned low[kBins];  // a mass in two words
  unsigned high[kBins];
};
struct Found {
  int bin;  // -1: none
  unsigned count;
  Mass before;  // of the bins above it
  Mass value;
};

// What is asked of a cut: so many tokens, or (count 0) so large a share of the mass.
struct Wanted {
  unsigned count;
  float share;
};

// The least cut that leaves what is wanted of the tokens that `cut` leaves; `cut` itself if it
// leaves less. `floor`: a key that the cut surely reaches.
LORAD_DEVICE Cut Select(const Row& row, const Cut& cut, const Wanted& wanted, uint32_t floor) {
  LORAD_SHARED(Bins, bins);
  LORAD_SHARED(Found, found);
  const bool by_mass = wanted.count == 0;
  Mass need = wanted.count, before = 0;
  uint32_t prefix = 0;  // the cut's bits from `known` on
  int known = 32;
  // Whole bins of the first digit, which then have all their tokens.
  floor = floor >> (32 - kDigitBits) << (32 - kDigitBits);
  Found at;
  for (int shift = 32 - kDigitBits;; shift = shift > kDigitBits ? shift - kDigitBits : 0) {
    for (int i = Thread(); i < kBins; i += kThreads) {
      bins.count[i] = bins.low[i] = bins.high[i] = 0;
    }
    if (Thread() == 0) found.bin = -1;
    SyncBlock();
    const bool first = known == 32;
    Mass total = 0;
    ForIds(row, PartOf(0, row.vocab, Warp()), [&](int id, float logit) {
      const uint32_t key = KeyOf(logit);
      if (!Keeps(cut, key, id)) return;
      const bool counts = first ? key >= floor : key >> known == prefix;
      if (!counts && !(first && by_mass)) return;
      const Mass mass = by_mass ? MassOf(row, logit) : 0;
      total += mass;
      if (!counts) return;
      // The last digit has ten bits: the eleventh is the same in all keys here, and in `prefix`.
      const uint32_t bin = (key >> shift) & (kBins - 1);
      AtomicAdd(&bins.count[bin], 1u);
      if (!by_mass) return;
      const auto low = static_cast<uint32_t>(mass);
      const uint32_t carry = AtomicAdd(&bins.low[bin], low) + low < low ? 1 : 0;
      const uint32_t high = static_cast<uint32_t>(mass >> 32) + carry;
      if (high != 0) AtomicAdd(&bins.high[bin], high);
    });
    SyncBlock();
    if (first && by_mass) {
      total = BlockSum(total);
      const auto share = static_cast<Mass>(ceil(double{wanted.share} * static_cast<double>(total)));
      need = share < 1 ? 1 : share > total ? total : share;
    }
    // From the highest bin on, four a thread.
    constexpr int kEach = kBins / kThreads;
    Mass values[kEach], sum = 0;
    for (int i = 0; i < kEach; ++i) {
      const int bin = kBins - 1 - (Thread() * kEach + i);
      values[i] = by_mass ? Mass{bins.high[bin]} << 32 | bins.low[bin] : bins.count[bin];
      sum += values[i];
    }
    Mass here = before + SumUpTo(sum) - sum;
    for (int i = 0; i < kEach; ++i) {
      const int bin = kBins - 1 - (Thread() * kEach + i);
      if (here < need && need <= here + values[i]) found = {bin, bins.count[bin], here, values[i]};
      here += values[i];
    }
    SyncBlock();
    at = found;
    SyncBlock();
    if (at.bin < 0) return cut;
    before = at.before;
    prefix = prefix << (known - shift) | static_cast<uint32_t>(at.bin);
    known = shift;
    // A bin that stays whole needs no closer look.
    const bool whole = by_mass ? at.count == 1 : need == before + at.value;
    if (whole) return Stricter(cut, {prefix << shift, kAnyId});
    if (shift == 0) break;
  }
  // Equal logits: as many as are needed, by id.
  const Mass each = at.value / at.count;
  const Mass ties = (need - before + each - 1) / each;
  if (ties == at.count) return Stricter(cut, {prefix, kAnyId});
  const int id = FindId(
      row, [&](int, float logit) { return Mass{KeyOf(logit) == prefix}; },
      [&](Mass) { return ties - 1; });
  return Stricter(cut, {prefix, id});
}

LORAD_KERNEL(kThreads, 1) void Sample(SampleArgs args) {
  const SampleRow wish = args.rows[BlockX()];
  if (wish.row < 0) return;
  Row row = {args.logits + size_t(wish.row) * size_t(args.stride), args.vocab, 0, 0};
  Best mine;
  const Best best = Likeliest(row, &mine);
  int token = best.id;
  row.max = best.logit;
  row.scale = 1.0f / wish.temperature;
  // Temperature 0, and one too small for its inverse, is greedy.
  if (fabsf(row.max) <= FLT_MAX && row.scale <= FLT_MAX) {
    Cut cut = {0, kAnyId};
    if (wish.min_p > 0) {
      cut.key = KeyOf(LogitOfShare(row.max, wish.temperature, double{wish.min_p}));
    }
    if (wish.top_k > 0 && wish.top_k < row.vocab) {
      cut = Select(row, cut, {static_cast<unsigned>(wish.top_k), 0},
                   ReachedBy(wish.top_k, mine.logit));
    }
    if (wish.top_p < 1) {
      // Tokens lighter than this weigh less than half of 1 - top_p together: they are not needed.
      const double light = (1.0 - double{wish.top_p}) * 0.5 / row.vocab;
      cut =
          Select(row, cut, {0, wish.top_p}, KeyOf(LogitOfShare(row.max, wish.temperature, light)));
    }
    const double uniform = UniformAt(wish.seed, wish.index);
    token = FindId(
        row,
        [&](int id, float logit) {
          return Keeps(cut, KeyOf(logit), id) ? MassOf(row, logit) : Mass{0};
        },
        [&](Mass all) {
          const auto target = static_cast<Mass>(uniform * static_cast<double>(all));
          return target < all ? target : all - 1;
        });
  }
  if (Thread() == 0) args.tokens[BlockX()] = token;
}

const KernelRef kSample = MakeKernel("sample", &Sample, kThreads);

}  // namespace

void LaunchSample(Launcher& launch, const DeviceFacts& /*device*/, const SampleParams& params) {
  LORAD_CHECK(params.logits.full && params.vocab > 0 && params.vocab <= params.logits.cols);
  launch(kSample, {.x = params.count},
         SampleArgs{static_cast<const float*>(params.logits.data), params.logits.stride,
                    params.vocab, params.rows, params.tokens});
}

std::vector<KernelRef> SampleKernels() { return {kSample}; }

}  // namespace lorad::kernels::cuda

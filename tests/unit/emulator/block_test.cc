// The emulated block: barriers, warp operations, asynchronous copies, shared memory, each against
// plain loops; fragments as the PTX ISA has them.
#include "tests/emulator/block.h"

#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"

namespace lorad::kernels::cuda {
namespace {

using emulator::RunGrid;

constexpr uint64_t kSeeds = 30;

template <typename Args>
void RunOn(void (*kernel)(Args), const Args& args, int threads, Grid grid = {}, uint64_t seed = 1,
           size_t shared_limit = 227 * 1024) {
  RunGrid(MakeKernel("kernel", kernel, threads), grid, &args,
          {.order_seed = seed, .shared_limit = shared_limit});
}

// --- Who am I ---

struct WhoArgs {
  int* seen;  // [blocks, threads], how often
};
LORAD_KERNEL(96, 1) void WhoKernel(WhoArgs args) {
  const int block = BlockY() * BlocksX() + BlockX();
  const bool right = Lane() == Thread() % 32 && Warp() == Thread() / 32 && BlocksY() == 2;
  args.seen[block * Threads() + Thread()] += right ? 1 : 1000;
}

TEST(EmulatedBlockTest, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> seen(3 * 2 * 96);
  RunOn<WhoArgs>(WhoKernel, {seen.data()}, 96, {.x = 3, .y = 2});
  for (const int count : seen) EXPECT_EQ(count, 1);
}

// --- Warp operations ---

struct LanesArgs {
  const float* in;
  float* out;  // [5, 32]
  uint32_t* ballot;
};
LORAD_KERNEL(32, 1) void LanesKernel(LanesArgs args) {
  const float x = args.in[Lane()];
  args.out[Lane()] = ShuffleXor(x, 5);
  args.out[32 + Lane()] = Shuffle(x, Lane() * 7);  // the lane is taken modulo 32
  args.out[64 + Lane()] = ShuffleUp(x, 3);
  const uint32_t ballot = Ballot(x > 0);
  if (Lane() == 9) *args.ballot = ballot;
  args.out[96 + Lane()] = Any(x > 1e6f) ? 1.0f : 0.0f;
  args.out[128 + Lane()] = Any(Lane() == 31) ? 1.0f : 0.0f;
}

TEST(EmulatedBlockTest, LanesExchangeValues) {
  std::mt19937 random(1);
  std::vector<float> in(32), out(160);
  for (float& x : in) x = std::normal_distribution<float>()(random);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    uint32_t ballot = 0;
    RunOn<LanesArgs>(LanesKernel, {in.data(), out.data(), &ballot}, 32, {}, seed);
    uint32_t want = 0;
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(out[size_t(i)], in[size_t(i ^ 5)]);
      EXPECT_EQ(out[size_t(32 + i)], in[size_t(i * 7 % 32)]);
      EXPECT_EQ(out[size_t(64 + i)], in[size_t(i < 3 ? i : i - 3)]);
      EXPECT_EQ(out[size_t(96 + i)], 0.0f);
      EXPECT_EQ(out[size_t(128 + i)], 1.0f);
      want |= uint32_t{in[size_t(i)] > 0} << i;
    }
    EXPECT_EQ(ballot, want);
  }
}

// --- Barriers ---

struct TurnArgs {
  int* data;  // [threads]
  int rounds;
  bool before;  // the barrier before the write
  bool after;
};
// In each round every thread takes its neighbour's number.
LORAD_KERNEL(128, 1) void TurnKernel(TurnArgs args) {
  LORAD_SHARED(int[128], numbers);
  numbers[Thread()] = Thread();
  SyncBlock();
  for (int i = 0; i < args.rounds; ++i) {
    const int next = numbers[(Thread() + 40) % 128];
    if (args.before) SyncBlock();
    numbers[Thread()] = next;
    if (args.after) SyncBlock();
  }
  args.data[Thread()] = numbers[Thread()];
}

// Under how many seeds the result is wrong.
int WrongTurns(bool before, bool after) {
  int wrong = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<int> data(128);
    RunOn<TurnArgs>(TurnKernel, {data.data(), 4, before, after}, 128, {}, seed);
    for (int i = 0; i < 128; ++i) {
      if (data[size_t(i)] == (i + 160) % 128) continue;
      ++wrong;
      break;
    }
  }
  return wrong;
}

TEST(EmulatedBlockTest, BarriersOrderABlock) { EXPECT_EQ(WrongTurns(true, true), 0); }
TEST(EmulatedBlockTest, AMissingBarrierShows) {
  EXPECT_GE(WrongTurns(false, true), int(kSeeds) / 2);
  EXPECT_GE(WrongTurns(true, false), int(kSeeds) / 2);
}

struct AheadArgs {
  int* result;
};
// Warps hand a number on and on; warp 0 overwrites it without having waited for warp 3 to read it.
LORAD_KERNEL(128, 1) void AheadKernel(AheadArgs args) {
  LORAD_SHARED(int, number);
  if (Thread() == 0) number = 1;
  SyncBlock();
  for (int i = 0; i < 20; ++i) SyncWarp();  // all get here late, and not together
  if (Thread() == 96) *args.result = number;
  if (Thread() == 0) number = 2;
}

TEST(EmulatedBlockTest, OneWarpMayGetFarAhead) {
  std::set<int> results;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    int result = 0;
    RunOn<AheadArgs>(AheadKernel, {&result}, 128, {}, seed);
    results.insert(result);
  }
  EXPECT_EQ(results, (std::set<int>{1, 2}));
}

struct TicketArgs {
  int* next;
  int* order;  // [blocks]
};
LORAD_KERNEL(32, 1) void TicketKernel(TicketArgs args) {
  if (Thread() == 0) args.order[AtomicAdd(args.next, 1)] = BlockX();
}

TEST(EmulatedBlockTest, BlocksRunInAnyOrder) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    int next = 0;
    std::vector<int> order(5);
    RunOn<TicketArgs>(TicketKernel, {&next, order.data()}, 32, {.x = 5}, seed);
    orders.insert(order);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
  }
  EXPECT_GE(orders.size(), 5u);
}

// --- Shared memory ---

struct SharedArgs {
  float* out;
};
LORAD_KERNEL(32, 1) void SharedKernel(SharedArgs args) {
  LORAD_SHARED(float[2][32], a);
  LORAD_SHARED(float[32], b);
  auto* const dynamic = reinterpret_cast<float*>(DynamicShared());
  args.out[Lane()] = a[1][Lane()] + b[Lane()] + dynamic[Lane()];  // never written
  a[1][Lane()] = b[Lane()] = dynamic[Lane()] = 1;
}

TEST(EmulatedBlockTest, SharedMemoryStartsAsNanInEveryBlock) {
  std::vector<float> out(32);
  RunOn<SharedArgs>(SharedKernel, {out.data()}, 32, {.x = 3, .shared_bytes = 128});
  for (const float x : out) EXPECT_TRUE(std::isnan(x));
  EXPECT_EQ(emulator::LastSharedBytes(), 256u + 128u + 128u);
}

// --- Asynchronous copies ---

struct AsyncArgs {
  const float* in;  // [2, 32 * 4]
  float* out;       // [3, 4]
  bool wait;
};
LORAD_KERNEL(32, 1) void AsyncKernel(AsyncArgs args) {
  LORAD_SHARED(float[3][128], tile);
  for (int i = 0; i < 3; ++i) tile[i][Lane() * 4] = -1;
  SyncWarp();
  CopyAsync16(&tile[0][Lane() * 4], args.in + Lane() * 4);
  CopyAsyncCommit();
  CopyAsync16(&tile[1][Lane() * 4], args.in + 128 + Lane() * 4);
  CopyAsync16(&tile[2][Lane() * 4], nullptr, false);
  CopyAsyncCommit();
  if (args.wait) CopyAsyncWait<1>();
  args.out[Lane()] = tile[0][Lane() * 4];
  if (args.wait) CopyAsyncWait<0>();
  args.out[32 + Lane()] = tile[1][Lane() * 4];
  args.out[64 + Lane()] = tile[2][Lane() * 4];
}

TEST(EmulatedBlockTest, CopiesAreThereAfterTheirWait) {
  std::vector<float> in(256), out(96);
  std::iota(in.begin(), in.end(), 1.0f);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    RunOn<AsyncArgs>(AsyncKernel, {in.data(), out.data(), true}, 32, {}, seed);
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(out[size_t(i)], in[size_t(4 * i)]);
      EXPECT_EQ(out[size_t(32 + i)], in[size_t(128 + 4 * i)]);
      EXPECT_EQ(out[size_t(64 + i)], 0.0f);
    }
  }
}

TEST(EmulatedBlockTest, CopiesAreLateOrEarly) {
  std::vector<float> in(256, 1.0f), out(96);
  RunOn<AsyncArgs>(AsyncKernel, {in.data(), out.data(), false}, 32, {}, 1);
  EXPECT_EQ(std::set<float>(out.begin(), out.end()), (std::set<float>{-1}));
  RunOn<AsyncArgs>(AsyncKernel, {in.data(), out.data(), false}, 32, {}, 2);
  EXPECT_EQ(std::set<float>(out.begin(), out.end()), (std::set<float>{-1, 0, 1}));
}

// --- Tensor cores ---

uint32_t Pack(float low, float high) { return PackBf16(low, high); }

struct MmaArgs {
  const float* a;  // [16, 16]
  const float* b;  // [16, 8]
  float* d;        // [16, 8]
};
// Indices as the PTX ISA writes them, "Matrix fragments for mma.m16n8k16 with floating point type":
// row = groupID for a0, a1, a4, a5, else groupID + 8; col = threadID_in_group * 2 + (i & 1), and 8
// more for i >= 4. b: row = threadID_in_group * 2 + (i & 1), and 8 more for i >= 2; col = groupID.
LORAD_KERNEL(32, 1) void MmaKernel(MmaArgs args) {
  const int group = Lane() >> 2, in_group = Lane() % 4;
  float a[8], b[4], d[4];
  for (int i = 0; i < 8; ++i) {
    const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
    const int column = in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
    a[i] = args.a[row * 16 + column];
  }
  for (int i = 0; i < 4; ++i) {
    const int row = in_group * 2 + (i & 1) + (i < 2 ? 0 : 8);
    b[i] = args.b[row * 8 + group];
  }
  const auto at = [&](int i) -> float& {
    const int row = i < 2 ? group : group + 8;
    return args.d[row * 8 + in_group * 2 + (i & 1)];
  };
  for (int i = 0; i < 4; ++i) d[i] = at(i);
  const uint32_t packed[4] = {Pack(a[0], a[1]), Pack(a[2], a[3]), Pack(a[4], a[5]),
                              Pack(a[6], a[7])};
  Mma16816(d, packed, Pack(b[0], b[1]), Pack(b[2], b[3]));
  for (int i = 0; i < 4; ++i) at(i) = d[i];
}

TEST(EmulatedBlockTest, MmaIsAProduct) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<float> a(256), b(128), d(128), want(128);
    for (float& x : a) x = FromBf16(ToBf16(normal(random)));
    for (float& x : b) x = FromBf16(ToBf16(normal(random)));
    for (float& x : d) x = normal(random);
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        float sum = d[size_t(row * 8 + column)];  // in fp32, k ascending: the emulator's order
        for (int k = 0; k < 16; ++k) sum += a[size_t(row * 16 + k)] * b[size_t(k * 8 + column)];
        want[size_t(row * 8 + column)] = sum;
      }
    }
    RunOn<MmaArgs>(MmaKernel, {a.data(), b.data(), d.data()}, 32, {}, seed);
    EXPECT_EQ(d, want);
  }
}

struct LoadMatrixArgs {
  const uint16_t* in;  // four matrices [8, 8]
  uint32_t* out;       // [4, 32]
};
LORAD_KERNEL(32, 1) void LoadMatrixKernel(LoadMatrixArgs args) {
  LORAD_SHARED(uint16_t[4][8][8], tile);
  for (int i = Lane(); i < 256; i += 32) (&tile[0][0][0])[i] = args.in[i];
  SyncWarp();
  uint32_t r[4];
  LoadMatrix4(r, &tile[Lane() / 8][Lane() % 8][0]);
  for (int j = 0; j < 4; ++j) args.out[j * 32 + Lane()] = r[j];
}

TEST(EmulatedBlockTest, LoadMatrixGivesFragments) {
  std::vector<uint16_t> in(256);
  std::iota(in.begin(), in.end(), uint16_t{1000});
  std::vector<uint32_t> out(128);
  RunOn<LoadMatrixArgs>(LoadMatrixKernel, {in.data(), out.data()}, 32);
  for (int j = 0; j < 4; ++j) {
    for (int lane = 0; lane < 32; ++lane) {
      const int at = j * 64 + lane / 4 * 8 + lane % 4 * 2;
      const uint32_t want = uint32_t{in[size_t(at)]} | uint32_t{in[size_t(at + 1)]} << 16;
      EXPECT_EQ(out[size_t(j * 32 + lane)], want);
    }
  }
}

// --- Numbers ---

TEST(EmulatedBlockTest, Bf16RoundsToNearestEven) {
  EXPECT_EQ(ToBf16(1.0f), 0x3f80);
  EXPECT_EQ(ToBf16(std::ldexp(257.0f, -8)), 0x3f80);  // a tie goes down to even
  EXPECT_EQ(ToBf16(std::ldexp(259.0f, -8)), 0x3f82);  // and up
  EXPECT_EQ(ToBf16(std::nextafter(std::ldexp(257.0f, -8), 2.0f)), 0x3f81);
  EXPECT_EQ(ToBf16(std::numeric_limits<float>::max()), 0x7f80);  // infinity
  EXPECT_EQ(ToBf16(-std::numeric_limits<float>::infinity()), 0xff80);
  EXPECT_EQ(ToBf16(std::numeric_limits<float>::quiet_NaN()), 0x7fff);
  EXPECT_EQ(ToBf16(-0.0f), 0x8000);
  EXPECT_EQ(LowBf16(PackBf16(1.5f, -2.0f)), 1.5f);
  EXPECT_EQ(HighBf16(PackBf16(1.5f, -2.0f)), -2.0f);
}

}  // namespace
}  // namespace lorad::kernels::cuda

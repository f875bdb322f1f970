#include "tests/emulator/block.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/emulator/fiber.h"
#include "tests/emulator/race_check.h"

namespace lorad::emulator {
namespace {

constexpr int kWarp = 32;

struct PendingCopy {
  void* to;
  const void* from;  // null: zeros
};

struct Thread {
  ThreadId id;
  std::vector<PendingCopy> copies;  // in the order of their groups
  std::vector<size_t> groups;       // where each committed group ends, in copies
  size_t done_copies = 0;
  size_t done_groups = 0;
};

// A generator for std::shuffle and for who runs next; xorshift64* (Vigna, "An experimental
// exploration of Marsaglia's xorshift generators, scrambled").
class Random {
 public:
  using result_type = uint64_t;
  void Seed(uint64_t seed) { state_ = seed * 0x9e3779b97f4a7c15u | 1; }
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }
  uint64_t operator()() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }

 private:
  uint64_t state_ = 1;
};

// Sets of lanes are bits.
struct Warp {
  uint32_t ready = 0;     // may run
  uint32_t waiting = 0;   // for other lanes
  uint32_t at_block = 0;  // in SyncBlock
  int rank = 0;           // of this warp among those of the block
  size_t bytes = 0;       // of what the waiting lanes exchange
  const char* what = "";
  int turn = 0;  // which of the two buffers
  alignas(16) std::byte values[2][kWarp * kMaxExchange];
};

struct Block {
  const char* kernel = "";
  Random random;
  bool late_copies = true;
  size_t shared_limit = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<int> by_rank;  // warps
  uint32_t runnable = 0;     // ranks of warps with lanes that are ready
  int arrived = 0;           // in SyncBlock
  int turn = 0;              // of SyncBlock, 0 or 1
  std::map<const void*, std::unique_ptr<std::byte[]>> shared;
  std::unique_ptr<std::byte[]> dynamic;
  size_t shared_bytes = 0;

  void MakeReady(Warp& warp, uint32_t lanes) {
    warp.ready |= lanes;
    if (lanes != 0) runnable |= 1u << warp.rank;
  }
};

thread_local Block* block = nullptr;
thread_local Thread* self = nullptr;
thread_local size_t last_shared_bytes = 0;

// Only their addresses count (race_check.h). Two of a barrier, in turns: a thread that is already
// at the next one publishes nothing to those that are still leaving this one.
char launch_place, end_place, fence_place;
char block_places[2], warp_places[1024 / kWarp][2];

[[noreturn]] void Die(const char* what, const char* detail = "") {
  std::fprintf(stderr, "emulator: kernel %s, block (%d, %d), thread %d: %s %s\n",
               block ? block->kernel : "?", self ? self->id.block_x : -1,
               self ? self->id.block_y : -1, self ? self->id.thread : -1, what, detail);
  std::abort();
}

// 0xff bytes: NaN in fp32 and in bf16.
std::unique_ptr<std::byte[]> Poisoned(size_t bytes) {
  auto memory = std::make_unique_for_overwrite<std::byte[]>(bytes);
  std::memset(memory.get(), 0xff, bytes);
  return memory;
}

void CountShared(size_t bytes) {
  block->shared_bytes += bytes;
  if (block->shared_bytes > block->shared_limit) Die("too much shared memory");
}

Warp& OwnWarp() { return block->warps[size_t(self->id.thread / kWarp)]; }
int OwnLane() { return self->id.thread % kWarp; }

// One of the bits that are set, about evenly.
int AnyBit(uint32_t bits, uint64_t random) {
  const int turn = static_cast<int>(random >> 32) & 31;
  return (std::countr_zero(std::rotr(bits, turn)) + turn) % 32;
}

void DoCopy(const PendingCopy& copy) {
  race_check::Write16(copy.to);
  if (copy.from != nullptr) race_check::Read16(copy.from);
  const race_check::Uninvolved uninvolved;
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, 16);
  } else {
    std::memcpy(copy.to, copy.from, 16);
  }
}

// Makes `here` ready to run the block (x, y) from its start.
void Prepare(Block& here, ThreadId first, size_t dynamic_bytes) {
  const auto threads = static_cast<size_t>(first.threads);
  here.threads.assign(threads, {});
  here.warps.resize(threads / kWarp);
  here.by_rank.resize(here.warps.size());
  std::iota(here.by_rank.begin(), here.by_rank.end(), 0);
  std::shuffle(here.by_rank.begin(), here.by_rank.end(), here.random);
  here.runnable = 0;
  for (size_t rank = 0; rank < here.warps.size(); ++rank) {
    Warp& warp = here.warps[size_t(here.by_rank[rank])];
    warp.rank = static_cast<int>(rank);
    warp.ready = warp.waiting = warp.at_block = 0;
    here.MakeReady(warp, ~0u);
  }
  for (size_t i = 0; i < threads; ++i) {
    here.threads[i].id = first;
    here.threads[i].id.thread = static_cast<int>(i);
  }
  here.arrived = 0;
  here.shared.clear();
  here.shared_bytes = 0;
  here.dynamic = Poisoned(dynamic_bytes);
  CountShared(dynamic_bytes);
}

// Nobody can run, and not all have ended.
[[noreturn]] void DieOfDeadlock() {
  for (size_t w = 0; w < block->warps.size(); ++w) {
    const Warp& warp = block->warps[w];
    const uint32_t lanes = warp.waiting | warp.at_block;
    if (lanes == 0) continue;
    const int lane = std::countr_zero(lanes);
    self = &block->threads[w * kWarp + size_t(lane)];
    Die("waits for threads that never come:", warp.waiting >> lane & 1 ? warp.what : "SyncBlock");
  }
  Die("lost a thread");
}

void RunBlock(const kernels::cuda::KernelRef& kernel, const void* args, std::deque<Fiber>& fibers) {
  Block& here = *block;
  const int threads = static_cast<int>(here.threads.size());
  for (int i = 0; i < threads; ++i) {
    fibers[size_t(i)].Reset([&kernel, args] {
      race_check::Take(&launch_place);
      kernel.emulate(kernel.function, args);
      race_check::Publish(&end_place);
    });
  }
  // Either all warps get on about equally, or one runs ahead of all others as far as it can.
  const bool one_ahead = here.random() >> 63 == 0;
  for (int ended = 0; ended < threads;) {
    if (here.runnable == 0) DieOfDeadlock();
    const uint64_t random = here.random();
    const int rank =
        one_ahead ? std::countr_zero(here.runnable) : AnyBit(here.runnable, random << 24);
    const int w = here.by_rank[size_t(rank)];
    Warp& warp = here.warps[size_t(w)];
    const int lane = AnyBit(warp.ready, random);
    warp.ready &= ~(1u << lane);
    if (warp.ready == 0) here.runnable &= ~(1u << rank);
    self = &here.threads[size_t(w * kWarp + lane)];
    current_thread = &self->id;
    Fiber& fiber = fibers[size_t(w * kWarp + lane)];
    fiber.Resume();
    if (fiber.done()) ++ended;
  }
  last_shared_bytes = std::max(last_shared_bytes, here.shared_bytes);
  self = nullptr;
}

void RunBlocks(const kernels::cuda::KernelRef& kernel, const kernels::cuda::Grid& grid,
               const void* args, const RunOptions& options) {
  Block here;
  block = &here;
  here.kernel = kernel.name;
  if (kernel.emulate == nullptr || kernel.threads < kWarp || kernel.threads % kWarp != 0 ||
      kernel.threads > 1024) {
    Die("cannot be run");
  }
  here.random.Seed(options.order_seed);
  here.late_copies = options.order_seed % 2 == 1;
  here.shared_limit = options.shared_limit;
  // Fibers are kept: their stacks are the dearest part of a block.
  static thread_local std::deque<Fiber> fibers;
  if (fibers.size() < size_t(kernel.threads)) fibers.resize(size_t(kernel.threads));
  last_shared_bytes = 0;
  std::vector<int> blocks(size_t(grid.x) * size_t(grid.y));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), here.random);
  for (const int i : blocks) {
    Prepare(here,
            {.thread = 0,
             .threads = kernel.threads,
             .block_x = i % grid.x,
             .block_y = i / grid.x,
             .blocks_x = grid.x,
             .blocks_y = grid.y},
            grid.shared_bytes);
    RunBlock(kernel, args, fibers);
  }
  block = nullptr;
}

// Four columns of a product at once.
using Columns = float __attribute__((vector_size(16)));

float Low(uint32_t packed) { return std::bit_cast<float>(packed << 16); }
float High(uint32_t packed) { return std::bit_cast<float>(packed & 0xffff0000u); }

// The product of a whole warp: reads MmaOperands, leaves each lane's d in its own. See
// kernels/cuda/gpu.h for who holds what.
void Multiply(std::byte* values) {
  auto* const lanes = reinterpret_cast<MmaOperands*>(values);
  float a[16][16], d[16][8];
  alignas(16) float b[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int g = lane / 4, t = lane % 4 * 2;
    const MmaOperands& own = lanes[lane];
    for (int i = 0; i < 4; ++i) {
      const int row = g + i % 2 * 8, k = t + i / 2 * 8;
      a[row][k] = Low(own.a[i]);
      a[row][k + 1] = High(own.a[i]);
      d[g + i / 2 * 8][t + i % 2] = own.d[i];
    }
    for (int i = 0; i < 2; ++i) {
      b[t + i * 8][g] = Low(own.b[i]);
      b[t + i * 8 + 1][g] = High(own.b[i]);
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int half = 0; half < 8; half += 4) {
      Columns sum;
      std::memcpy(&sum, &d[row][half], sizeof(sum));
      for (int k = 0; k < 16; ++k) {
        Columns factor;
        std::memcpy(&factor, &b[k][half], sizeof(factor));
        sum += a[row][k] * factor;
      }
      std::memcpy(&d[row][half], &sum, sizeof(sum));
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) lanes[lane].d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

}  // namespace

constinit thread_local const ThreadId* current_thread = nullptr;

void RunGrid(const kernels::cuda::KernelRef& kernel, const kernels::cuda::Grid& grid,
             const void* args, const RunOptions& options) {
  race_check::Publish(&launch_place);
  {
    const race_check::Uninvolved uninvolved;
    RunBlocks(kernel, grid, args, options);
  }
  race_check::Take(&end_place);
}

size_t LastSharedBytes() { return last_shared_bytes; }

std::byte* DynamicShared() { return block->dynamic.get(); }

void SyncBlock() {
  char* const place = &block_places[block->turn];
  race_check::Publish(place);
  OwnWarp().at_block |= 1u << OwnLane();
  if (++block->arrived < static_cast<int>(block->threads.size())) {
    Fiber::Stop();
    race_check::Take(place);
    return;
  }
  race_check::Take(place);
  block->turn ^= 1;
  block->arrived = 0;
  OwnWarp().at_block &= ~(1u << OwnLane());
  for (Warp& warp : block->warps) {
    block->MakeReady(warp, warp.at_block);
    warp.at_block = 0;
  }
}

void SyncWarp() {
  char* const place = &warp_places[self->id.thread / kWarp][OwnWarp().turn];
  race_check::Publish(place);
  ExchangeBytes("", 1, "SyncWarp");
  race_check::Take(place);
}

void Fence() {
  race_check::Publish(&fence_place);
  race_check::Take(&fence_place);
}

void CheckAligned(const void* at, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(at) % alignment != 0) Die("misaligned access");
}

void CopyLater(void* to, const void* from) {
  race_check::Write16(to);  // as soon as this, and as late as in DoCopy
  const race_check::Uninvolved uninvolved;
  if (block->late_copies || block->random() >> 63 == 0) {
    self->copies.push_back({to, from});
  } else {
    DoCopy({to, from});
  }
}

void CommitCopies() {
  const race_check::Uninvolved uninvolved;
  self->groups.push_back(self->copies.size());
}

void AwaitCopies(int pending) {
  Thread& me = *self;
  while (me.groups.size() - me.done_groups > size_t(pending)) {
    const size_t end = me.groups[me.done_groups++];
    while (me.done_copies < end) DoCopy(me.copies[me.done_copies++]);
  }
  if (me.done_copies == me.copies.size() && me.done_groups == me.groups.size()) {
    me.copies.clear();
    me.groups.clear();
    me.done_copies = me.done_groups = 0;
  }
}

const std::byte* ExchangeBytes(const void* value, size_t bytes, const char* what,
                               void (*finish)(std::byte* values)) {
  const race_check::Uninvolved uninvolved;
  Warp& warp = OwnWarp();
  if (warp.waiting == 0) {
    warp.bytes = bytes;
    warp.what = what;
  } else if (warp.bytes != bytes || (warp.what != what && std::strcmp(warp.what, what) != 0)) {
    Die("lanes are at different operations:", what);
  }
  std::byte* const values = warp.values[warp.turn];
  std::memcpy(values + size_t(OwnLane()) * bytes, value, bytes);
  warp.waiting |= 1u << OwnLane();
  if (warp.waiting != ~0u) {
    Fiber::Stop();
    return values;
  }
  if (finish != nullptr) finish(values);
  warp.turn ^= 1;
  warp.waiting = 0;
  block->MakeReady(warp, ~(1u << OwnLane()));
  return values;
}

void Multiply(MmaOperands& operands) {
  const std::byte* const values = ExchangeBytes(&operands, sizeof(operands), "Mma16816", &Multiply);
  std::memcpy(operands.d, values + size_t(OwnLane()) * sizeof(operands), sizeof(operands.d));
}

void* SharedBytes(const void* place, size_t bytes) {
  const race_check::Uninvolved uninvolved;
  auto& memory = block->shared[place];
  if (memory == nullptr) {
    memory = Poisoned(bytes);
    CountShared(bytes);
  }
  return memory.get();
}

}  // namespace lorad::emulator

#include "tests/emulator/block.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "tests/emulator/fiber.h"

namespace lorad::emulator {
namespace {

constexpr int kWarp = 32;

struct Copy {
  void* to;
  const void* from;
};

struct Thread {
  ThreadId id;
  uint64_t waits_for = 0;  // of the warp's or the block's generation, 0: runs
  bool waits_for_block = false;
  std::deque<std::vector<Copy>> committed;
  std::vector<Copy> open;
};

struct Warp {
  uint64_t generation = 1;
  int arrived = 0;
  size_t bytes = 0;
  const char* what = "";
  alignas(16) std::byte values[2][kWarp * kMaxExchange];
};

struct Block {
  const char* kernel = "";
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  uint64_t generation = 1;
  int arrived = 0;
  int ended = 0;
  std::map<const void*, std::unique_ptr<std::byte[]>> shared;
  std::byte* dynamic = nullptr;
  size_t shared_bytes = 0;
  size_t shared_limit = 0;
};

thread_local Block* block = nullptr;
thread_local Thread* self = nullptr;
thread_local size_t last_shared_bytes = 0;

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

// Stops this thread until `generation` has moved on.
void Await(uint64_t generation, bool of_block) {
  Thread* const me = self;
  me->waits_for = generation;
  me->waits_for_block = of_block;
  Fiber::Stop();
}

bool CanRun(const Thread& t) {
  if (t.waits_for == 0) return true;
  const uint64_t now =
      t.waits_for_block ? block->generation : block->warps[size_t(t.id.thread / kWarp)].generation;
  return now > t.waits_for;
}

void RunBlock(const kernels::cuda::KernelRef& kernel, const ThreadId& first, const void* args,
              size_t dynamic_bytes, const RunOptions& options, std::vector<Fiber>& fibers,
              std::mt19937_64& random) {
  Block here;
  here.kernel = kernel.name;
  here.threads.resize(size_t(first.threads));
  here.warps.resize(size_t(first.threads / kWarp));
  here.shared_limit = options.shared_limit;
  here.shared_bytes = dynamic_bytes;
  const auto dynamic = Poisoned(dynamic_bytes);
  here.dynamic = dynamic.get();
  block = &here;
  if (dynamic_bytes > options.shared_limit) Die("too much shared memory");
  for (int i = 0; i < first.threads; ++i) {
    here.threads[size_t(i)].id = first;
    here.threads[size_t(i)].id.thread = i;
    fibers[size_t(i)].Reset([&kernel, args] { kernel.emulate(kernel.function, args); });
  }
  std::vector<int> order(size_t(first.threads));
  for (int i = 0; i < first.threads; ++i) order[size_t(i)] = i;
  while (here.ended < first.threads) {
    std::shuffle(order.begin(), order.end(), random);
    bool any = false;
    for (const int i : order) {
      Thread& thread = here.threads[size_t(i)];
      Fiber& fiber = fibers[size_t(i)];
      if (fiber.done() || !CanRun(thread)) continue;
      any = true;
      thread.waits_for = 0;
      self = &thread;
      fiber.Resume();
      if (fiber.done()) ++here.ended;
    }
    if (!any) {
      for (const Thread& t : here.threads) {
        if (t.waits_for == 0) continue;
        self = const_cast<Thread*>(&t);
        Die("waits for threads that never come:",
            t.waits_for_block ? "SyncBlock" : here.warps[size_t(t.id.thread / kWarp)].what);
      }
    }
  }
  last_shared_bytes = std::max(last_shared_bytes, here.shared_bytes);
  block = nullptr;
  self = nullptr;
}

}  // namespace

void RunGrid(const kernels::cuda::KernelRef& kernel, const kernels::cuda::Grid& grid,
             const void* args, const RunOptions& options) {
  if (kernel.emulate == nullptr || kernel.threads < kWarp || kernel.threads % kWarp != 0 ||
      kernel.threads > 1024) {
    Die("cannot be run");
  }
  // Fibers are kept: their stacks are the dearest part of a block.
  static thread_local std::vector<Fiber> fibers(1024);
  std::mt19937_64 random(options.order_seed);
  last_shared_bytes = 0;
  for (int y = 0; y < grid.y; ++y) {
    for (int x = 0; x < grid.x; ++x) {
      RunBlock(kernel,
               {.thread = 0,
                .threads = kernel.threads,
                .block_x = x,
                .block_y = y,
                .blocks_x = grid.x,
                .blocks_y = grid.y},
               args, grid.shared_bytes, options, fibers, random);
    }
  }
}

size_t LastSharedBytes() { return last_shared_bytes; }

const ThreadId& Self() { return self->id; }
std::byte* DynamicShared() { return block->dynamic; }

void SyncBlock() {
  const uint64_t generation = block->generation;
  if (++block->arrived == static_cast<int>(block->threads.size())) {
    block->arrived = 0;
    ++block->generation;
    return;
  }
  Await(generation, true);
}

void CheckAligned(const void* at, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(at) % alignment != 0) Die("misaligned access");
}

void CopyLater(void* to, const void* from) { self->open.push_back({to, from}); }

void CommitCopies() {
  self->committed.push_back(std::move(self->open));
  self->open.clear();
}

void AwaitCopies(int pending) {
  while (static_cast<int>(self->committed.size()) > pending) {
    for (const Copy& copy : self->committed.front()) {
      if (copy.from == nullptr) {
        std::memset(copy.to, 0, 16);
      } else {
        std::memcpy(copy.to, copy.from, 16);
      }
    }
    self->committed.pop_front();
  }
}

const std::byte* ExchangeBytes(const void* value, size_t bytes, const char* what) {
  Warp& warp = block->warps[size_t(self->id.thread / kWarp)];
  const uint64_t generation = warp.generation;
  if (warp.arrived == 0) {
    warp.bytes = bytes;
    warp.what = what;
  } else if (warp.bytes != bytes || std::strcmp(warp.what, what) != 0) {
    Die("lanes are at different operations:", what);
  }
  std::byte* const values = warp.values[generation % 2];
  std::memcpy(values + size_t(self->id.thread % kWarp) * bytes, value, bytes);
  if (++warp.arrived == kWarp) {
    warp.arrived = 0;
    ++warp.generation;
  } else {
    Await(generation, false);
  }
  return values;
}

void* SharedBytes(const void* place, size_t bytes) {
  auto& memory = block->shared[place];
  if (memory == nullptr) {
    memory = Poisoned(bytes);
    block->shared_bytes += bytes;
    if (block->shared_bytes > block->shared_limit) Die("too much shared memory");
  }
  return memory.get();
}

}  // namespace lorad::emulator

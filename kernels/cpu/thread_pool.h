// ThreadPool: the CPU backend's own workers. ParallelFor hands out tiles one by one from a counter,
// so a thread whose core is taken away by the machine delays one tile, not its share of a static
// split; the caller takes tiles too.
//
// Idle workers spin for a few tens of microseconds, the gap between two operations of a step, then
// sleep. A call allocates nothing and, with workers awake, makes no system call.
//
// Numbers: workers flush denormals to zero for life; callers say so with FlushDenormals.
//
// Thread: one caller at a time. Tiles must not call the pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace lorad::kernels::cpu {

// Flushes denormals to zero in this thread for as long as it lives: a denormal costs a hundred
// times a normal product.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

// That this process may run on.
int UsableCores();

class ThreadPool {
 public:
  // `threads` counts the caller; 0: as many as the cores that this process may run on.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs fn(tile, thread) for each tile in [0, tiles), 0 <= thread < threads(), no two at once with
  // the same thread.
  template <typename Fn>
  void ParallelFor(int tiles, Fn&& fn) {
    if (tiles <= 1 || workers_.empty()) {
      for (int tile = 0; tile < tiles; ++tile) fn(tile, 0);
      return;
    }
    using Callee = std::remove_reference_t<Fn>;
    Run(
        tiles, [](void* f, int tile, int thread) { (*static_cast<Callee*>(f))(tile, thread); },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Call = void (*)(void* fn, int tile, int thread);

  void Run(int tiles, Call call, void* fn);
  void Work(int thread);
  // Takes tiles of the current job until none is left.
  void TakeTiles(int thread);

  // The job: written by the caller before `ticket_`, read by whoever claims a tile of it. A claim
  // keeps the job from ending.
  Call call_ = nullptr;
  void* fn_ = nullptr;
  // Tiles of the job in the upper half, tiles claimed in the lower: one add claims from the job it
  // counts for, however late the claimer is.
  alignas(64) std::atomic<uint64_t> ticket_ = 0;
  alignas(64) std::atomic<uint32_t> done_ = 0;  // tiles; futex
  std::atomic<bool> caller_sleeps_ = false;
  alignas(64) std::atomic<uint32_t> epoch_ = 0;  // jobs begun; futex
  std::atomic<int> sleepers_ = 0;
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace lorad::kernels::cpu

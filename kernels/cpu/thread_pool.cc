#include "kernels/cpu/thread_pool.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace lorad::kernels::cpu {
namespace {

constexpr auto kSpin = std::chrono::microseconds(40);
constexpr int kPausesAClockRead = 16;
constexpr unsigned kFlushBits = 0x8040;  // of MXCSR: flush-to-zero and denormals-are-zero

void FutexWait(std::atomic<uint32_t>& word, uint32_t while_equal) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, while_equal, nullptr,
          nullptr, 0);
}

void FutexWake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, count, nullptr,
          nullptr, 0);
}

void Pause() {
#if defined(__SSE__)
  _mm_pause();
#endif
}

// Waits a little for `condition`; false if it did not come.
template <typename Condition>
bool SpinUntil(const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesAClockRead; ++i) {
      if (condition()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  return false;
}

}  // namespace

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  return std::max(1, CPU_COUNT(&set));
}

#if defined(__SSE__)
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushBits); }
FlushDenormals::~FlushDenormals() { _mm_setcsr(saved_); }
#else
FlushDenormals::FlushDenormals() : saved_(0) {}
FlushDenormals::~FlushDenormals() = default;
#endif

ThreadPool::ThreadPool(int threads) {
  if (threads <= 0) threads = UsableCores();
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { Work(t); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  ++epoch_;
  FutexWake(epoch_, INT_MAX);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int tiles, Call call, void* fn) {
  const auto total = static_cast<uint32_t>(tiles);
  call_ = call;
  fn_ = fn;
  done_.store(0, std::memory_order_relaxed);
  ticket_.store(uint64_t{total} << 32, std::memory_order_release);
  ++epoch_;
  if (sleepers_.load() > 0) FutexWake(epoch_, std::min(tiles - 1, INT_MAX));
  TakeTiles(0);
  if (SpinUntil([&] { return done_.load(std::memory_order_acquire) == total; })) return;
  caller_sleeps_ = true;
  for (uint32_t done = done_.load(); done != total; done = done_.load()) FutexWait(done_, done);
  caller_sleeps_ = false;
}

void ThreadPool::TakeTiles(int thread) {
  uint32_t taken = 0;
  uint32_t total = 0;
  for (;;) {
    const uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    const auto tile = static_cast<uint32_t>(ticket);
    if (tile >= ticket >> 32) break;
    total = static_cast<uint32_t>(ticket >> 32);
    call_(fn_, static_cast<int>(tile), thread);
    ++taken;
  }
  // Not counted before, so no claim of the loop can be of a later job.
  if (taken > 0 && done_.fetch_add(taken) + taken == total && caller_sleeps_) FutexWake(done_, 1);
}

void ThreadPool::Work(int thread) {
  const FlushDenormals flush;
  uint32_t seen = 0;
  for (;;) {
    const auto changed = [&] { return epoch_.load() != seen; };
    if (!SpinUntil(changed)) {
      ++sleepers_;
      while (!changed()) FutexWait(epoch_, seen);
      --sleepers_;
    }
    seen = epoch_.load();
    if (stop_) return;
    TakeTiles(thread);
  }
}

}  // namespace lorad::kernels::cpu

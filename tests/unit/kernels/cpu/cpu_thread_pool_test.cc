#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/thread_pool.h"

namespace lorad::kernels::cpu {
namespace {

TEST(ThreadPool, RunsEveryTileOnceWhateverTheCounts) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int tiles : {0, 1, 2, 7, 64, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(tiles));
      pool.ParallelFor(tiles, [&](int tile, int thread) {
        ASSERT_TRUE(thread >= 0 && thread < threads);
        ++runs[static_cast<size_t>(tile)];
      });
      for (const auto& r : runs) EXPECT_EQ(r, 1);
    }
  }
}

TEST(ThreadPool, EachJobSeesWhatTheOneBeforeWrote) {
  ThreadPool pool(4);
  std::vector<int64_t> cells(16);  // plain: the pool alone orders them
  for (int job = 1; job <= 5000; ++job) {
    // A tile reads a cell that another thread may have written in the job before.
    const size_t shift = static_cast<size_t>(job) % 16;
    std::vector<int64_t> next(16);
    pool.ParallelFor(16, [&](int tile, int) {
      next[static_cast<size_t>(tile)] = cells[(static_cast<size_t>(tile) + shift) % 16] + 1;
    });
    cells = next;
    for (const int64_t cell : cells) ASSERT_EQ(cell, job);
  }
}

TEST(ThreadPool, NoTwoTilesAtOnceHaveTheSameThread) {
  ThreadPool pool(3);
  std::vector<std::atomic<int>> inside(3);
  for (int job = 0; job < 200; ++job) {
    pool.ParallelFor(30, [&](int, int thread) {
      EXPECT_EQ(++inside[static_cast<size_t>(thread)], 1);
      --inside[static_cast<size_t>(thread)];
    });
  }
}

TEST(ThreadPool, WorkersThatFellAsleepWakeForTheNextJob) {
  ThreadPool pool(2);
  for (int job = 0; job < 20; ++job) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // well beyond the spinning
    std::atomic<int> started = 0;
    // Each tile waits for the other, so one thread alone would never end the job.
    pool.ParallelFor(2, [&](int, int) {
      ++started;
      while (started < 2) std::this_thread::yield();
    });
    EXPECT_EQ(started, 2);
  }
}

TEST(ThreadPool, ACallerThatWaitsLongSleepsAndIsWoken) {
  ThreadPool pool(2);
  for (int job = 0; job < 10; ++job) {
    std::atomic<int> ended = 0;
    std::atomic<bool> other_started = false;
    pool.ParallelFor(2, [&](int, int thread) {
      if (thread == 0) {
        while (!other_started) std::this_thread::yield();
      } else {
        other_started = true;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
      ++ended;
    });
    EXPECT_EQ(ended, 2);
  }
}

TEST(ThreadPool, DenormalsAreFlushedInEveryThreadAndRestoredInTheCaller) {
#if defined(__SSE__)
  volatile float smallest = std::numeric_limits<float>::min();
  ThreadPool pool(2);
  {
    const FlushDenormals flush;
    std::atomic<int> started = 0;
    pool.ParallelFor(2, [&](int, int) {
      ++started;
      while (started < 2) std::this_thread::yield();
      EXPECT_EQ(smallest / 2, 0.0f);
    });
  }
  EXPECT_GT(smallest / 2, 0.0f);
#else
  GTEST_SKIP() << "only x86 needs the mode";
#endif
}

}  // namespace
}  // namespace lorad::kernels::cpu

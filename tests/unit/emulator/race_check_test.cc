// ThreadSanitizer sees the races of a kernel, and takes what barriers and fences order for ordered.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"
#include "tests/emulator/block.h"

namespace {
int reports = 0;
}  // namespace

// Called by ThreadSanitizer. Here a race is what a test expects: it must not end the program badly.
// Not looked at itself: ThreadSanitizer holds its locks.
extern "C" __attribute__((no_sanitize("thread"))) void __tsan_on_report(void* /*report*/) {
  ++reports;
}
extern "C" const char* __tsan_default_options() {
  return "exitcode=0:report_bugs=1:suppress_equal_stacks=0:suppress_equal_addresses=0";
}

namespace lorad::kernels::cuda {
namespace {

struct Args {
  int* out;  // [threads * blocks], zero
  int sync;
};

int Races(void (*kernel)(Args), int sync, int threads = 64, int blocks = 1) {
  std::vector<int> out(static_cast<size_t>(threads * blocks));
  const Args args{out.data(), sync};
  reports = 0;
  emulator::RunGrid(MakeKernel("kernel", kernel, threads), {.x = blocks}, &args);
  return reports;
}

// Each thread reads what its neighbour in the other warp wrote.
void NeighbourKernel(Args args) {
  LORAD_SHARED(int[64], values);
  values[Thread()] = Thread();
  if (args.sync == 1) SyncWarp();
  if (args.sync == 2) SyncBlock();
  args.out[Thread()] = values[Thread() ^ 32];
}

TEST(RaceCheckTest, SharedMemoryIsOrderedByTheBlocksBarrierOnly) {
  EXPECT_GT(Races(&NeighbourKernel, 0), 0);
  EXPECT_GT(Races(&NeighbourKernel, 1), 0);
  EXPECT_EQ(Races(&NeighbourKernel, 2), 0);
}

// The same within a warp. A shuffle orders no memory.
void LaneKernel(Args args) {
  LORAD_SHARED(int[64], values);
  values[Thread()] = Thread();
  if (args.sync == 1) args.out[Thread()] = ShuffleXor(values[Thread()], 1);
  if (args.sync == 2) SyncWarp();
  args.out[Thread()] = values[Thread() ^ 1];
}

TEST(RaceCheckTest, LanesAreOrderedByTheWarpsBarrier) {
  EXPECT_GT(Races(&LaneKernel, 0), 0);
  EXPECT_GT(Races(&LaneKernel, 1), 0);
  EXPECT_EQ(Races(&LaneKernel, 2), 0);
}

// Memory that is written again needs a barrier after the reads too.
void AgainKernel(Args args) {
  LORAD_SHARED(int[64], values);
  for (int round = 0; round < 2; ++round) {
    values[Thread()] = Thread() + round;
    SyncBlock();
    args.out[Thread()] += values[Thread() ^ 32];
    if (args.sync == 1) SyncBlock();
  }
}

TEST(RaceCheckTest, WritesAfterReadsAreSeen) {
  EXPECT_GT(Races(&AgainKernel, 0), 0);
  EXPECT_EQ(Races(&AgainKernel, 1), 0);
}

// Blocks are ordered by nothing. All write the same word, or each its own.
void BlocksKernel(Args args) {
  if (args.sync == 0) args.out[0] = Thread();
  if (args.sync == 1) args.out[BlockX() * Threads() + Thread()] = 1;
  if (args.sync == 2) AtomicAdd(&args.out[0], 1);
}

TEST(RaceCheckTest, BlocksAreNotOrdered) {
  EXPECT_GT(Races(&BlocksKernel, 0, 32, 3), 0);
  EXPECT_EQ(Races(&BlocksKernel, 1, 32, 3), 0);
  EXPECT_EQ(Races(&BlocksKernel, 2, 32, 3), 0);
}

}  // namespace
}  // namespace lorad::kernels::cuda

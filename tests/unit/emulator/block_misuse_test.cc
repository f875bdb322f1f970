// What a kernel must not do ends the program with a message that names the kernel and the thread.
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"
#include "tests/emulator/block.h"

namespace lorad::kernels::cuda {
namespace {

enum class Misuse {
  kBarrierInABranch,
  kBarrierAfterReturn,
  kWarpBarrierInABranch,
  kTwoShuffles,
  kShuffleAndBarrier,
  kTwoSizes,
  kMisalignedLoad,
  kMisalignedStore,
  kMisalignedCopy,
  kMisalignedMatrix,
};

struct MisuseArgs {
  Misuse misuse;
  std::byte* memory;
};
LORAD_KERNEL(64, 1) void MisuseKernel(MisuseArgs args) {
  LORAD_SHARED(Vec4[32], shared);
  auto* const bytes = reinterpret_cast<std::byte*>(shared);
  switch (args.misuse) {
    case Misuse::kBarrierInABranch:
      if (Thread() != 40) SyncBlock();
      return;
    case Misuse::kBarrierAfterReturn:
      if (Warp() == 1) return;
      SyncBlock();
      return;
    case Misuse::kWarpBarrierInABranch:
      if (Thread() < 7) SyncWarp();
      return;
    case Misuse::kTwoShuffles:
      if (Lane() < 16) {
        ShuffleXor(1, 1);
      } else {
        ShuffleUp(1, 1);
      }
      return;
    case Misuse::kShuffleAndBarrier:
      if (Lane() < 16) {
        SyncBlock();
      } else {
        ShuffleXor(1, 1);
      }
      return;
    case Misuse::kTwoSizes:
      Lane() < 16 ? (void)Shuffle(1, 1) : (void)Shuffle(1.0, 1);
      return;
    case Misuse::kMisalignedLoad:
      Load16(args.memory + 8);
      return;
    case Misuse::kMisalignedStore:
      Store16(args.memory + 4, {});
      return;
    case Misuse::kMisalignedCopy:
      CopyAsync16(bytes, args.memory + 4);
      return;
    case Misuse::kMisalignedMatrix: {
      uint32_t r[4];
      LoadMatrix4(r, bytes + 2);
      return;
    }
  }
}

class EmulatedBlockDeathTest : public testing::Test {
 protected:
  EmulatedBlockDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  static void Do(Misuse misuse) {
    std::vector<Vec4> memory(4);
    const MisuseArgs args{misuse, reinterpret_cast<std::byte*>(memory.data())};
    emulator::RunGrid(MakeKernel("wrong", MisuseKernel, 64), {}, &args);
  }
};

TEST_F(EmulatedBlockDeathTest, Divergence) {
  EXPECT_DEATH(Do(Misuse::kBarrierInABranch), "kernel wrong.*never come: SyncBlock");
  EXPECT_DEATH(Do(Misuse::kBarrierAfterReturn), "kernel wrong.*never come: SyncBlock");
  EXPECT_DEATH(Do(Misuse::kWarpBarrierInABranch), "thread 0: waits .*never come: SyncWarp");
  EXPECT_DEATH(Do(Misuse::kShuffleAndBarrier), "never come");
  EXPECT_DEATH(Do(Misuse::kTwoShuffles), "lanes are at different operations");
  EXPECT_DEATH(Do(Misuse::kTwoSizes), "lanes are at different operations: Shuffle");
}

TEST_F(EmulatedBlockDeathTest, Misalignment) {
  EXPECT_DEATH(Do(Misuse::kMisalignedLoad), "misaligned access");
  EXPECT_DEATH(Do(Misuse::kMisalignedStore), "misaligned access");
  EXPECT_DEATH(Do(Misuse::kMisalignedCopy), "misaligned access");
  EXPECT_DEATH(Do(Misuse::kMisalignedMatrix), "misaligned access");
}

struct NoArgs {};
LORAD_KERNEL(32, 1) void SharedKernel(NoArgs) {
  LORAD_SHARED(char[1000], shared);
  shared[Thread()] = 1;
}

TEST_F(EmulatedBlockDeathTest, TooMuchSharedMemory) {
  const KernelRef kernel = MakeKernel("large", SharedKernel, 32);
  const auto run = [&](size_t dynamic, size_t limit) {
    const NoArgs args;
    emulator::RunGrid(kernel, {.shared_bytes = dynamic}, &args, {.shared_limit = limit});
  };
  run(0, 1000);
  run(24, 1024);
  EXPECT_DEATH(run(0, 999), "kernel large.*too much shared memory");
  EXPECT_DEATH(run(25, 1024), "kernel large.*too much shared memory");
  EXPECT_DEATH(run(2000, 1024), "kernel large.*too much shared memory");
}

TEST_F(EmulatedBlockDeathTest, OddBlocks) {
  const NoArgs args;
  for (const int threads : {0, 16, 33, 1056}) {
    EXPECT_DEATH(emulator::RunGrid(MakeKernel("odd", SharedKernel, threads), {}, &args),
                 "kernel odd.*cannot be run");
  }
}

LORAD_KERNEL(32, 1) void DeepKernel(NoArgs) {
  volatile char local[200 << 10];
  for (size_t i = sizeof(local); i-- > 0;) local[i] = 1;
}

TEST_F(EmulatedBlockDeathTest, TooMuchOnTheStack) {
  const NoArgs args;
  EXPECT_DEATH(emulator::RunGrid(MakeKernel("deep", DeepKernel, 32), {}, &args), "");
}

}  // namespace
}  // namespace lorad::kernels::cuda

#include <algorithm>
#include <string>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/isa_choice.h"

namespace lorad::kernels::cpu {
namespace {

TEST(IsaChoice, EveryUsableSetComputesRightlyAndCanBeAskedFor) {
  for (const KernelTable* kernels : UsableKernels()) {
    EXPECT_TRUE(CheckKernels(*kernels)) << kernels->name;
    const auto backend = NewCpuBackend({.threads = 1, .isa = kernels->name});
    ASSERT_TRUE(backend.ok());
    EXPECT_EQ((*backend)->name(), std::string("cpu/") + kernels->name);
  }
  EXPECT_STREQ(UsableKernels().back()->name, "portable");
}

TEST(IsaChoice, AutoChoosesOneOfThem) {
  const auto chosen = ChooseKernels("auto");
  ASSERT_TRUE(chosen.ok());
  const auto usable = UsableKernels();
  EXPECT_NE(std::find(usable.begin(), usable.end(), *chosen), usable.end());
  // Nothing that a machine of the last ten years lacks is slower than four lanes.
  if (usable.size() > 1) {
    EXPECT_STRNE((*chosen)->name, "portable");
  }
}

TEST(IsaChoice, UnknownAndUnsupportedAreRefusedByName) {
  for (const char* isa : {"sse9", "", "AVX2"}) {
    EXPECT_EQ(NewCpuBackend({.isa = isa}).status().code(), absl::StatusCode::kInvalidArgument);
  }
  if (!DetectCpuFeatures().amx_bf16) {
    const absl::Status status = NewCpuBackend({.isa = "amx"}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(status.message()).find("portable"), std::string::npos);
  }
  EXPECT_EQ(NewCpuBackend({.threads = -1}).status().code(), absl::StatusCode::kInvalidArgument);
}

// The guard against an instruction set that computes wrongly must itself be able to fail.
const KernelTable* broken_base = nullptr;

KernelTable Broken() {
  broken_base = PortableKernels();
  return *broken_base;
}

TEST(IsaChoice, TheCheckSeesAWrongGemm) {
  KernelTable broken = Broken();
  broken.gemm = [](const GemmTask& task) {
    broken_base->gemm(task);
    task.y[3 * task.y_stride] = -task.y[3 * task.y_stride];
    for (int row = task.first_row; row < task.end_row; ++row) task.y[row * task.y_stride + 7] = 0;
  };
  EXPECT_FALSE(CheckKernels(broken));
}

TEST(IsaChoice, TheCheckSeesAWrongShrink) {
  KernelTable broken = Broken();
  broken.shrink = [](const ShrinkTask& task) {
    broken_base->shrink(task);
    for (int row = 0; row < task.rows; ++row) task.t[row * task.t_stride + 4] = 0;
  };
  EXPECT_FALSE(CheckKernels(broken));
}

TEST(IsaChoice, TheCheckSeesAWrongExpand) {
  KernelTable broken = Broken();
  broken.expand = [](const ExpandTask& task) {
    ExpandTask other = task;
    other.scale *= 1.5f;
    broken_base->expand(other);
  };
  EXPECT_FALSE(CheckKernels(broken));
}

TEST(IsaChoice, TheCheckSeesANaN) {
  KernelTable broken = Broken();
  broken.expand = [](const ExpandTask& task) { task.y[0] = __builtin_nanf(""); };
  EXPECT_FALSE(CheckKernels(broken));
}

}  // namespace
}  // namespace lorad::kernels::cpu

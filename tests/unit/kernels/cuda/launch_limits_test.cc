// Every kernel can be launched on every device that we build for. Registers and static shared
// memory are checked where nvcc is (tests/lint/register_budgets.sh), dynamic shared memory at each
// emulated launch.
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/adapter_ops.h"
#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/dense_ops.h"
#include "kernels/cuda/exchange_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sample_ops.h"

namespace lorad::kernels::cuda {
namespace {

TEST(LaunchLimitsTest, KernelsFitEveryDevice) {
  std::set<std::string> names;
  std::set<const void*> functions;
  for (const auto& list : {AdapterKernels(), AttentionKernels(), DenseKernels(), ExchangeKernels(),
                           RowKernels(), SampleKernels()}) {
    EXPECT_FALSE(list.empty());
    for (const KernelRef& kernel : list) {
      SCOPED_TRACE(kernel.name);
      EXPECT_GE(kernel.threads, 32);
      EXPECT_LE(kernel.threads, 1024);
      EXPECT_EQ(kernel.threads % 32, 0);
      EXPECT_GT(kernel.args_bytes, 0u);
      EXPECT_LE(kernel.args_bytes, 4096u);  // of kernel parameters
      EXPECT_NE(kernel.emulate, nullptr);
      EXPECT_TRUE(names.insert(kernel.name).second) << "another kernel has this name";
      EXPECT_TRUE(functions.insert(kernel.function).second) << "the kernel has two names";
    }
  }
}

}  // namespace
}  // namespace lorad::kernels::cuda

#include "tests/unit/kernels/cuda/test_runtime.h"

namespace lorad::kernels::cuda {

std::unique_ptr<Runtime> NewTestRuntime(uint64_t /*seed*/) {
  auto device = OpenDevice(0);
  return device.ok() ? *std::move(device) : nullptr;
}

bool TestRuntimeIsSlow() { return false; }

void FailTestRuntime(Runtime& runtime, int /*operations*/) {
  runtime.Fail(absl::InternalError("failed as the test asked"));
}

}  // namespace lorad::kernels::cuda

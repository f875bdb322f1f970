#include "tests/emulator/runtime.h"
#include "tests/unit/kernels/cuda/test_runtime.h"

namespace lorad::kernels::cuda {

std::unique_ptr<Runtime> NewTestRuntime(uint64_t seed) {
  return std::make_unique<emulator::EmulatedRuntime>(emulator::RuntimeOptions{.order_seed = seed});
}

bool TestRuntimeIsSlow() { return true; }

void FailTestRuntime(Runtime& runtime, int operations) {
  static_cast<emulator::EmulatedRuntime&>(runtime).FailAfter(operations);
}

}  // namespace lorad::kernels::cuda

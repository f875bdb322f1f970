#include "tests/emulator/runtime.h"
#include "tests/unit/kernels/cuda/test_runtime.h"

namespace lorad::kernels::cuda {

std::unique_ptr<Runtime> NewTestRuntime(uint64_t seed) {
  return std::make_unique<emulator::EmulatedRuntime>(emulator::RuntimeOptions{.order_seed = seed});
}

bool TestRuntimeIsSlow() { return true; }

}  // namespace lorad::kernels::cuda

// The device that a test program of the CUDA backend runs on: the emulated one or a real one, by
// which of emulated_test_runtime.cc and device_test_runtime.cc is linked.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/runtime.h"

namespace lorad::kernels::cuda {

// Null: this machine has none. `seed`: of the order in which emulated streams run.
std::unique_ptr<Runtime> NewTestRuntime(uint64_t seed = 1);
// Whether kernels run on the host, thousands of times slower than on a device.
bool TestRuntimeIsSlow();
// The emulated device fails after so many more operations.
void FailTestRuntime(Runtime& runtime, int operations);

}  // namespace lorad::kernels::cuda

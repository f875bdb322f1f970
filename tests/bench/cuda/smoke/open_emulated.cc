#include "tests/bench/cuda/bench_device.h"
#include "tests/emulator/runtime.h"

namespace lorad::bench {

std::unique_ptr<kernels::cuda::Runtime> OpenBenchRuntime() {
  return std::make_unique<emulator::EmulatedRuntime>();
}

}  // namespace lorad::bench

#include <iostream>

#include "tests/bench/cuda/bench_device.h"

namespace lorad::bench {

std::unique_ptr<kernels::cuda::Runtime> OpenBenchRuntime() {
  auto runtime = kernels::cuda::OpenDevice(0);
  if (runtime.ok()) return *std::move(runtime);
  std::cerr << "no device: " << runtime.status().message() << "\n";
  return nullptr;
}

}  // namespace lorad::bench

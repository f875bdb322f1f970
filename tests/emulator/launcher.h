// EmulatedLauncher: runs each kernel to its end when it is launched, for tests of one op group.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "tests/emulator/block.h"

namespace lorad::emulator {

class EmulatedLauncher final : public kernels::cuda::Launcher {
 public:
  explicit EmulatedLauncher(uint64_t order_seed = 1) : options_{.order_seed = order_seed} {}
  void Launch(const kernels::cuda::KernelRef& kernel, const kernels::cuda::Grid& grid,
              const void* args) override {
    RunGrid(kernel, grid, args, options_);
  }

 private:
  const RunOptions options_;
};

}  // namespace lorad::emulator

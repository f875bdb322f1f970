#include "kernels/cuda/device_memory.h"

#include <bit>

namespace lorad::kernels::cuda {

absl::Status Scratch::Grow(Runtime& runtime) {
  if (!wanted()) return absl::OkStatus();
  memory_ = {};  // waits for all work
  auto memory = DeviceMemory::Allocate(runtime, std::bit_ceil(wanted_));
  if (!memory.ok()) return memory.status();
  memory_ = *std::move(memory);
  wanted_ = 0;
  return absl::OkStatus();
}

}  // namespace lorad::kernels::cuda

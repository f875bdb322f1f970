// NewCudaBackend on the emulated device, so that a whole daemon runs the CUDA backend's code on a
// machine without a GPU: slowly, and with every check of the emulator.
#include <memory>

#include "kernels/cuda/cuda_backend.h"
#include "tests/emulator/runtime.h"

namespace lorad::kernels {

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaOptions& options) {
  return cuda::CudaBackend::Create(
      std::make_unique<emulator::EmulatedRuntime>(),
      {.kv_format = options.kv_format, .host_threads = options.host_threads});
}

}  // namespace lorad::kernels

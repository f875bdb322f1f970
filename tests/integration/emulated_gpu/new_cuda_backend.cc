// NewCudaBackend on the emulated device, so that a whole daemon runs the CUDA backend's code on a
// machine without a GPU: slowly, and with every check of the emulator.
#include <memory>

#include "absl/status/status.h"
#include "kernels/communicator.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/emulator/runtime.h"

namespace lorad::kernels {

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaOptions& options) {
  return cuda::CudaBackend::Create(
      std::make_unique<emulator::EmulatedRuntime>(),
      {.kv_format = options.kv_format, .host_threads = options.host_threads});
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> NewCudaCommunicators(
    std::span<Backend* const>) {
  return absl::FailedPreconditionError("emulated devices have no communicators");
}

}  // namespace lorad::kernels

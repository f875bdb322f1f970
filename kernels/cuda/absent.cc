// What a build without CUDA has in place of its backend.
#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"

namespace lorad::kernels {

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaOptions&) {
  return absl::FailedPreconditionError("this build has no CUDA backend");
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> NewCudaCommunicators(
    std::span<Backend* const>) {
  return absl::FailedPreconditionError("this build has no CUDA backend");
}

}  // namespace lorad::kernels

// NewCudaCommunicators of a build without CUDA.
#include "absl/status/status.h"
#include "kernels/communicator.h"

namespace lorad::kernels {

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> NewCudaCommunicators(
    std::span<Backend* const>) {
  return absl::FailedPreconditionError("this build has no CUDA backend");
}

}  // namespace lorad::kernels

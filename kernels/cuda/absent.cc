// NewCudaBackend of a build without CUDA.
#include "absl/status/status.h"
#include "kernels/backend.h"

namespace lorad::kernels {

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaOptions&) {
  return absl::FailedPreconditionError("this build has no CUDA backend");
}

}  // namespace lorad::kernels

// NewCudaBackend and NewCudaCommunicators: on real devices.
#include <memory>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/communicator.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/lt_api.h"
#include "kernels/cuda/nccl_api.h"
#include "kernels/cuda/nccl_communicator.h"
#include "kernels/cuda/runtime.h"
#include "memory/base/status_macros.h"

namespace lorad::kernels {

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaOptions& options) {
  LORAD_ASSIGN_OR_RETURN(std::unique_ptr<cuda::Runtime> runtime, cuda::OpenDevice(options.device));
  cuda::CudaBackendOptions own{.kv_format = options.kv_format,
                               .gemm_choices = options.gemm_choices,
                               .host_threads = options.host_threads};
  if (!options.batch_invariant) {
    const auto lt = cuda::LoadLtApi();
    if (lt.ok()) {
      own.lt = *lt;
    } else if (options.notice) {
      options.notice(std::string(lt.status().message()) +
                     ": prompts are computed without the library, slower");
    }
  }
  return cuda::CudaBackend::Create(std::move(runtime), own);
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> NewCudaCommunicators(
    std::span<Backend* const> ranks) {
  LORAD_ASSIGN_OR_RETURN(const cuda::NcclApi api, cuda::LoadNcclApi());
  std::vector<cuda::CudaBackend*> backends;
  for (Backend* rank : ranks) backends.push_back(static_cast<cuda::CudaBackend*>(rank));
  return cuda::NcclCommunicator::Connect(api, backends);
}

}  // namespace lorad::kernels

// NewCudaBackend on the emulated device, so that a whole daemon runs the CUDA backend's code on a
// machine without a GPU: slowly, and with every check of the emulator.
#include <memory>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/nccl_communicator.h"
#include "tests/emulator/runtime.h"
#include "tests/unit/kernels/cuda/fake_nccl.h"

namespace lorad::kernels {
namespace {

// By number, in the order in which they were opened.
std::vector<cuda::Runtime*>& Devices() {
  static std::vector<cuda::Runtime*> devices;
  return devices;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaOptions& options) {
  emulator::RuntimeOptions device;
  device.facts.index = static_cast<int>(Devices().size());
  auto runtime = std::make_unique<emulator::EmulatedRuntime>(device);
  Devices().push_back(runtime.get());
  return cuda::CudaBackend::Create(
      std::move(runtime), {.kv_format = options.kv_format, .host_threads = options.host_threads});
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> NewCudaCommunicators(
    std::span<Backend* const> ranks) {
  static cuda::FakeNccl nccl(Devices());
  std::vector<cuda::CudaBackend*> backends;
  for (Backend* rank : ranks) backends.push_back(static_cast<cuda::CudaBackend*>(rank));
  return cuda::NcclCommunicator::Connect(nccl.api(), backends);
}

}  // namespace lorad::kernels

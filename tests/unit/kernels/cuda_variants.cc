// The suite's variants: the CUDA backend, with graphs for what it decodes.
#include "kernels/cuda/cuda_backend.h"
#include "memory/base/check.h"
#include "tests/unit/kernels/conformance.h"
#include "tests/unit/kernels/cuda/test_runtime.h"

namespace lorad::kernels::conformance {

std::vector<std::string> Variants() {
  if (cuda::NewTestRuntime() == nullptr) return {};
  return {"cuda"};
}

std::unique_ptr<Backend> MakeVariant(const RigOptions& options) {
  auto backend = cuda::CudaBackend::Create(
      cuda::NewTestRuntime(options.placement),
      {.host_threads = options.threads, .programs = {.list_bytes = size_t{1} << 18}});
  LORAD_CHECK(backend.ok());
  return *std::move(backend);
}

VariantTraits TraitsOf(const std::string& variant) {
  if (variant == "reference") return {};
  return {.rounds_activations = true, .slow = cuda::TestRuntimeIsSlow()};
}

}  // namespace lorad::kernels::conformance

#include "kernels/cuda/cuda_backend.h"
#include "memory/base/check.h"
#include "tests/golden/models/golden_backends.h"
#include "tests/unit/kernels/cuda/test_runtime.h"

namespace lorad {

// An emulated device takes minutes for what a real one does at once.
std::vector<std::string> GoldenModels() {
  if (kernels::cuda::TestRuntimeIsSlow()) return {"llama", "qwen2", "qwen3"};
  return {"llama", "llama31", "mistral", "qwen2", "qwen3"};
}

std::unique_ptr<kernels::Backend> MakeGoldenBackend(const std::string& name, int threads) {
  LORAD_CHECK(name == "cuda");
  auto backend = kernels::cuda::CudaBackend::Create(kernels::cuda::NewTestRuntime(),
                                                    {.host_threads = threads});
  LORAD_CHECK(backend.ok());
  return *std::move(backend);
}

std::vector<GoldenBackend> GoldenBackends() {
  if (kernels::cuda::NewTestRuntime() == nullptr) return {};
  return {{"cuda", kCudaBounds}};
}

}  // namespace lorad

#include "tests/golden/models/golden_backends.h"

namespace lorad {

std::vector<std::string> GoldenModels() {
  return {"llama", "llama31", "mistral", "qwen2", "qwen3"};
}

std::unique_ptr<kernels::Backend> MakeGoldenBackend(const std::string& name, int threads) {
  if (name == "reference") return kernels::NewReferenceBackend();
  auto cpu = kernels::NewCpuBackend({.threads = threads, .isa = name});
  return cpu.ok() ? std::move(*cpu) : nullptr;
}

// Each alone, and the most exact and the fastest one also as 2 and as 4 ranks. The models have 4
// heads and 2 key/value heads, so that of 4 ranks two keep the same one.
std::vector<GoldenBackend> GoldenBackends() {
  std::vector<GoldenBackend> backends = {{"reference", kFp32Bounds}};
  for (const char* isa : {"portable", "avx2", "avx512", "avx512bf16", "amx"}) {
    if (MakeGoldenBackend(isa) != nullptr) backends.push_back({isa, kBf16Bounds});
  }
  const GoldenBackend best = backends.back();
  for (const int ranks : {2, 4}) {
    backends.push_back({"reference", kFp32Bounds, ranks});
    backends.push_back({best.name, best.bounds, ranks});
  }
  return backends;
}

}  // namespace lorad

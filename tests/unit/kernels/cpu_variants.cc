// The suite's variants: the instruction sets of the cpu backend.
#include "memory/base/check.h"
#include "tests/unit/kernels/conformance.h"

namespace lorad::kernels::conformance {

std::vector<std::string> Variants() {
  std::vector<std::string> have;
  for (const char* isa : {"portable", "avx2", "avx512", "avx512bf16", "amx"}) {
    if (NewCpuBackend({.threads = 1, .isa = isa}).ok()) have.emplace_back(isa);
  }
  return have;
}

std::unique_ptr<Backend> MakeVariant(const RigOptions& options) {
  auto backend = NewCpuBackend({.threads = options.threads, .isa = options.backend});
  LORAD_CHECK(backend.ok());
  return *std::move(backend);
}

VariantTraits TraitsOf(const std::string&) { return {}; }

}  // namespace lorad::kernels::conformance

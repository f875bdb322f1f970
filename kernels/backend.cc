// Defaults of what only some backends do: calling them on another is a programming error.
#include "kernels/backend.h"

#include <cstdlib>

#include "memory/base/check.h"

namespace lorad::kernels {
namespace {

[[noreturn]] void NotOfThisBackend() {
  LORAD_CHECK(false);
  std::abort();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Buffer>> Backend::AllocateStaging(size_t) { NotOfThisBackend(); }

void Backend::StageAdapter(const AdapterLayout&, std::span<const LowRankFactors>,
                           std::span<std::byte>) const {
  NotOfThisBackend();
}

std::unique_ptr<AdapterTransfer> Backend::StartTransfer(const AdapterLayout&,
                                                        std::span<const std::byte>, const PageSlab&,
                                                        std::span<const uint32_t>, uint64_t) {
  NotOfThisBackend();
}

void Backend::Sample(const Tensor&, std::span<const SampleRow>) { NotOfThisBackend(); }

absl::StatusOr<std::span<const int32_t>> Backend::Sampled(uint64_t) { NotOfThisBackend(); }

}  // namespace lorad::kernels

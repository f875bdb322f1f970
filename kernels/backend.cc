// Defaults of what only some backends do: calling them on another is a programming error.
#include "kernels/backend.h"

#include "memory/base/check.h"

namespace lorad::kernels {

absl::StatusOr<std::unique_ptr<Buffer>> Backend::AllocateStaging(size_t) {
  LORAD_CHECK(StagesAdapters());
  return absl::UnimplementedError("staging");
}

void Backend::StageAdapter(const AdapterLayout&, std::span<const LowRankFactors>,
                           std::span<std::byte>) const {
  LORAD_CHECK(StagesAdapters());
}

std::unique_ptr<AdapterTransfer> Backend::StartTransfer(const AdapterLayout&,
                                                        std::span<const std::byte>, const PageSlab&,
                                                        std::span<const uint32_t>, uint64_t) {
  LORAD_CHECK(StagesAdapters());
  return nullptr;
}

void Backend::Sample(const Tensor&, std::span<const SampleRow>) { LORAD_CHECK(Samples()); }

absl::StatusOr<std::span<const int32_t>> Backend::Sampled(uint64_t) {
  LORAD_CHECK(Samples());
  return absl::UnimplementedError("sampling");
}

}  // namespace lorad::kernels

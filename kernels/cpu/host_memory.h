// HostMemory: a zeroed, page-aligned block of this process's memory, in huge pages where the system
// gives them: weights and adapters are read as streams, and small pages would cost a TLB miss every
// 4 KiB.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"

namespace lorad::kernels::cpu {

class HostMemory {
 public:
  static absl::StatusOr<HostMemory> Allocate(size_t bytes);

  HostMemory() = default;
  ~HostMemory();
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&& other) noexcept;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;         // asked for
  size_t mapped_bytes_ = 0;  // from `data_` on
};

}  // namespace lorad::kernels::cpu

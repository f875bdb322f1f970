#include "kernels/cpu/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "fmt/format.h"

namespace lorad::kernels::cpu {
namespace {

constexpr size_t kSmallPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

absl::StatusOr<HostMemory> HostMemory::Allocate(size_t bytes) {
  const size_t page = bytes >= kHugePage ? kHugePage : kSmallPage;
  const size_t wanted = (std::max<size_t>(bytes, 1) + page - 1) / page * page;
  const size_t reserved = wanted + page;  // so that an aligned part of the wanted size is in it
  void* p = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || bytes > reserved) {
    return absl::ResourceExhaustedError(fmt::format("cannot allocate {} bytes of memory", bytes));
  }
  auto* begin = static_cast<std::byte*>(p);
  const size_t misaligned = reinterpret_cast<uintptr_t>(begin) % page;
  const size_t head = misaligned == 0 ? 0 : page - misaligned;
  if (head > 0) munmap(begin, head);
  munmap(begin + head + wanted, reserved - head - wanted);
  HostMemory memory;
  memory.data_ = begin + head;
  memory.bytes_ = bytes;
  memory.mapped_bytes_ = wanted;
  if (page == kHugePage) madvise(memory.data_, wanted, MADV_HUGEPAGE);  // advice only
  return memory;
}

HostMemory::~HostMemory() {
  if (data_ != nullptr) munmap(data_, mapped_bytes_);
}

HostMemory::HostMemory(HostMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

}  // namespace lorad::kernels::cpu

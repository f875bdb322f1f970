#include "tests/unit/memory/heap_count.h"

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> live_bytes{0};

void* TryAllocate(size_t size) {
  void* at = std::malloc(size == 0 ? 1 : size);
  if (at == nullptr) return nullptr;
  live_bytes += static_cast<int64_t>(malloc_usable_size(at) + sizeof(size_t));  // and its header
  return at;
}

void* Allocate(size_t size) {
  void* at = TryAllocate(size);
  if (at == nullptr) throw std::bad_alloc();
  return at;
}

void Free(void* at) {
  if (at == nullptr) return;
  live_bytes -= static_cast<int64_t>(malloc_usable_size(at) + sizeof(size_t));
  std::free(at);
}

}  // namespace

void* operator new(size_t size) { return Allocate(size); }
void* operator new[](size_t size) { return Allocate(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return TryAllocate(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return TryAllocate(size); }
void operator delete(void* at) noexcept { Free(at); }
void operator delete[](void* at) noexcept { Free(at); }
void operator delete(void* at, size_t) noexcept { Free(at); }
void operator delete[](void* at, size_t) noexcept { Free(at); }

namespace lorad {

int64_t LiveHeapBytes() { return live_bytes.load(); }

}  // namespace lorad

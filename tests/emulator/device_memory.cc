#include "tests/emulator/device_memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace lorad::emulator {
namespace {

constexpr size_t kAddresses = size_t{64} << 30;
constexpr size_t kPage = 4096;

size_t WholePages(size_t bytes) { return bytes == 0 ? kPage : (bytes + kPage - 1) / kPage * kPage; }

void Poison([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(at, bytes);
#endif
}
void Unpoison([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
#endif
}

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::abort();
}

}  // namespace

DeviceMemory::DeviceMemory(size_t limit) : limit_(limit) {
  void* base =
      mmap(nullptr, kAddresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) Die("emulator: no addresses for the device's memory");
  base_ = static_cast<std::byte*>(base);
}

DeviceMemory::~DeviceMemory() {
  Unpoison(base_, taken_);
  munmap(base_, kAddresses);
}

void* DeviceMemory::Allocate(size_t bytes) {
  const size_t whole = WholePages(bytes);
  if (bytes > limit_ - used_ || whole > kAddresses - taken_) return nullptr;
  std::byte* const block = base_ + taken_;
  if (mprotect(block, whole, open_ ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
    Die("emulator: mprotect");
  }
  taken_ += whole;
  used_ += bytes;
  Poison(block + bytes, whole - bytes);
  blocks_.emplace(block, bytes);
  return block;
}

bool DeviceMemory::Free(void* memory) {
  const auto found = blocks_.find(static_cast<const std::byte*>(memory));
  if (found == blocks_.end()) return false;
  const size_t whole = WholePages(found->second);
  // A new mapping in place of the old one gives the memory back and keeps the addresses.
  if (mmap(memory, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
           0) == MAP_FAILED) {
    Die("emulator: mmap");
  }
  Poison(memory, whole);
  used_ -= found->second;
  blocks_.erase(found);
  return true;
}

bool LiesInOneBlock(const MemoryBlocks& blocks, const void* at, size_t bytes) {
  const auto* const byte = static_cast<const std::byte*>(at);
  auto block = blocks.upper_bound(byte);
  if (block == blocks.begin()) return false;
  --block;
  const auto offset = static_cast<size_t>(byte - block->first);
  return offset <= block->second && bytes <= block->second - offset;
}

void DeviceMemory::Protect(bool open) {
  open_ = open;
  // Blocks that lie side by side in one call.
  for (auto block = blocks_.begin(); block != blocks_.end();) {
    const std::byte* const first = block->first;
    const std::byte* end = first;
    for (; block != blocks_.end() && block->first == end; ++block) {
      end += WholePages(block->second);
    }
    if (mprotect(const_cast<std::byte*>(first), static_cast<size_t>(end - first),
                 open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
      Die("emulator: mprotect");
    }
  }
}

}  // namespace lorad::emulator

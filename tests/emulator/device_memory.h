// Memory of the emulated device: its own stretch of addresses, which the host may touch only while
// the device works. So a host that reads through a device pointer crashes, as it would with a GPU.
// Freed addresses are never used again, and AddressSanitizer sees both overruns and use after free.
//
// Thread: guarded by the runtime's lock.
#pragma once

#include <cstddef>
#include <map>

namespace lorad::emulator {

// Blocks of memory by their begins, with their bytes.
using MemoryBlocks = std::map<const std::byte*, size_t>;
// Whether [at, at + bytes) lies in one of them.
bool LiesInOneBlock(const MemoryBlocks& blocks, const void* at, size_t bytes);

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t limit);  // bytes of all blocks together
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* Allocate(size_t bytes);  // zeroed, 256-byte aligned; null: no memory left
  bool Free(void* memory);       // false: no block starts there
  // Whether [at, at + bytes) lies in one block.
  bool Holds(const void* at, size_t bytes) const { return LiesInOneBlock(blocks_, at, bytes); }
  size_t used() const { return used_; }
  size_t blocks() const { return blocks_.size(); }

  // Between the two the blocks may be read and written.
  void Open() { Protect(true); }
  void Close() { Protect(false); }

 private:
  void Protect(bool open);

  const size_t limit_;
  std::byte* base_ = nullptr;
  size_t taken_ = 0;  // of the addresses, from base_
  size_t used_ = 0;
  bool open_ = false;
  MemoryBlocks blocks_;
};

}  // namespace lorad::emulator

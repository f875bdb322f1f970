// A block of GPU threads as fibers on one host thread. RunGrid runs a kernel's blocks one after
// another, in an order drawn from a seed; within a block threads run one at a time, in such an
// order too, each until it waits for others. A result that depends on the seed is a race in the
// kernel. Under odd seeds asynchronous copies happen as late as they may, under even ones some
// happen at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "kernels/cuda/launch.h"

namespace lorad::emulator {

struct ThreadId {
  int thread = 0;
  int threads = 0;
  int block_x = 0;
  int block_y = 0;
  int blocks_x = 0;
  int blocks_y = 0;
};

struct RunOptions {
  uint64_t order_seed = 1;
  size_t shared_limit = 227 * 1024;  // of a block, static and dynamic together
};

// Runs the kernel to its end. Misuse (divergent barriers, misaligned access, too much shared
// memory) ends the program with a message.
void RunGrid(const kernels::cuda::KernelRef& kernel, const kernels::cuda::Grid& grid,
             const void* args, const RunOptions& options = {});

// The most shared memory that a block of this thread's last RunGrid used.
size_t LastSharedBytes();

// --- For tests/emulator/gpu.h, from inside a kernel ---
extern constinit thread_local const ThreadId* current_thread;
inline const ThreadId& Self() { return *current_thread; }
std::byte* DynamicShared();
void SyncBlock();
void SyncWarp();
void Fence();
void CheckAligned(const void* at, size_t alignment);
void CopyLater(void* to, const void* from);  // 16 bytes; from null: zeros
void CommitCopies();
void AwaitCopies(int pending);

inline constexpr size_t kMaxExchange = 64;
// Waits for the warp; gives the values of all lanes, [32 * bytes], valid until this lane's next
// exchange but one. `finish`, if any, is called once for the warp and may change them.
const std::byte* ExchangeBytes(const void* value, size_t bytes, const char* what,
                               void (*finish)(std::byte* values) = nullptr);

template <typename T>
class Lanes {
 public:
  explicit Lanes(const std::byte* values) : values_(reinterpret_cast<const T*>(values)) {}
  const T& operator[](int lane) const { return values_[lane]; }

 private:
  const T* values_;
};
template <typename T>
Lanes<T> Exchange(const T& value, const char* what) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kMaxExchange);
  return Lanes<T>(ExchangeBytes(&value, sizeof(T), what));
}

// What a lane gives to mma.m16n8k16, and gets back in d.
struct MmaOperands {
  float d[4];
  uint32_t a[4];
  uint32_t b[2];
};
void Multiply(MmaOperands& operands);

void* SharedBytes(const void* place, size_t bytes);
template <typename T>
T& Shared(const void* place) {
  return *static_cast<T*>(SharedBytes(place, sizeof(T)));
}

}  // namespace lorad::emulator

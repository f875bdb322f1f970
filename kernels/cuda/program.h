// Program: what a step has recorded and not yet given to the device: kernel launches, library
// calls, waits, forks to a side stream, and the *lists* that the kernels read.
//
// A list is a span of host memory. It is copied into a staging block when it is recorded, and has
// its address in device memory at once; the block goes to the device as one copy before the first
// command. A list's place and capacity depend only on its size rounded up (powers of two, a minimum
// each), so that two steps that differ in numbers only are programs of equal bytes: key(). An
// equal program is replayed by a captured graph (program_runner.h).
//
// Thread: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

// A list in device memory, and how long it may be without changing the program.
template <typename T>
struct DeviceList {
  ListView<T> view;
  int capacity = 0;
};

class Program final : public Launcher {
 public:
  // A library's work on a stream; plain data, so that it can be compared.
  using Callee = void (*)(void* self, Stream stream, const void* args);

  // Starts anew. Lists go to `staging` and will lie at `device`, equally large and 256-byte
  // aligned.
  void Begin(std::span<std::byte> staging, std::byte* device);

  // --- Lists. REQUIRES: the numbers of a span do not change until the next Begin; a span that is
  // given twice is uploaded once. ---
  template <typename T>
  DeviceList<T> List(std::span<const T> items, size_t min_capacity);
  // Without a count: items, then `fill` up to `size`.  REQUIRES: size >= items.size().
  template <typename T>
  const T* Array(std::span<const T> items, size_t size, const T& fill, size_t min_capacity);

  // --- Commands, in the order of the stream ---
  void Launch(const KernelRef& kernel, const Grid& grid, const void* args) override;
  template <typename Args>
  void Call(Callee callee, void* self, const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args>);
    Args plain = args;
    __builtin_clear_padding(&plain);
    AddCall(callee, self, &plain, sizeof(Args));
  }
  // What follows starts after what `event` has last recorded. A program with waits is not
  // replayable.
  void Wait(Event event);
  // What follows goes to the side stream, after all that is before; until EndFork. Join: what
  // follows waits for it.  REQUIRES: one fork at a time, each joined.
  void Fork();
  void EndFork();
  void Join();

  // --- When it is complete ---
  bool empty() const { return commands_.empty(); }
  bool fits() const { return list_bytes_ <= staging_.size(); }  // else it must not run
  size_t list_bytes() const { return list_bytes_; }
  bool has_waits() const { return has_waits_; }
  bool joined() const { return !forked_ && !unjoined_; }
  std::span<const std::byte> key() const;
  std::span<const std::byte> staging() const { return staging_; }
  std::byte* device() const { return device_; }

  // Gives the commands to the streams. `fork` and `join` are events for the side stream.
  void Issue(Runtime& runtime, Stream main, Stream side, Event fork, Event join) const;

 private:
  struct alignas(16) Unit {
    std::byte bytes[16];
  };
  enum class Kind : uint32_t { kLaunch, kCall, kWait, kFork, kEndFork, kJoin };
  struct Header {
    Kind kind;
    uint32_t payload_bytes;
    uint64_t reserved;
  };
  struct LaunchPart {
    const void* function;
    const char* name;
    void (*emulate)(const void* function, const void* args);
    uint64_t shared_bytes;
    int32_t threads;
    int32_t grid_x;
    int32_t grid_y;
    uint32_t args_bytes;
  };
  struct CallPart {
    Callee callee;
    void* self;
  };
  struct WaitPart {
    int32_t event;
    int32_t reserved[3];
  };
  struct Known {
    const void* data;
    size_t bytes;
    size_t size;  // of the array, 0 for a list
    size_t place;
    size_t capacity;
  };

  static size_t CapacityFor(size_t size, size_t minimum);
  // Null: these were not given yet.
  const Known* Find(const void* data, size_t bytes, size_t size) const;
  size_t Reserve(size_t bytes);  // a place in the block
  void Add(Kind kind, const void* part, size_t part_bytes, const void* args, size_t args_bytes);
  void AddCall(Callee callee, void* self, const void* args, size_t args_bytes);

  static constexpr size_t kCountBytes = 16;  // before a list's items

  std::span<std::byte> staging_;
  std::byte* device_ = nullptr;
  size_t list_bytes_ = 0;
  std::vector<Known> known_;
  std::vector<Unit> commands_;
  bool has_waits_ = false;
  bool forked_ = false;
  bool unjoined_ = false;
};

template <typename T>
DeviceList<T> Program::List(std::span<const T> items, size_t min_capacity) {
  static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kCountBytes);
  const Known* known = Find(items.data(), items.size_bytes(), 0);
  if (known == nullptr) {
    const size_t capacity = CapacityFor(items.size(), min_capacity);
    const size_t place = Reserve(kCountBytes + capacity * sizeof(T));
    if (fits()) {
      const int count = static_cast<int>(items.size());
      std::memcpy(staging_.data() + place, &count, sizeof(count));
      if (count > 0) {
        std::memcpy(staging_.data() + place + kCountBytes, items.data(), items.size_bytes());
      }
    }
    known = &known_.emplace_back(Known{items.data(), items.size_bytes(), 0, place, capacity});
  }
  std::byte* const at = device_ + known->place;
  return {{reinterpret_cast<const int*>(at), reinterpret_cast<const T*>(at + kCountBytes)},
          static_cast<int>(known->capacity)};
}

template <typename T>
const T* Program::Array(std::span<const T> items, size_t size, const T& fill, size_t min_capacity) {
  static_assert(std::is_trivially_copyable_v<T>);
  const Known* known = Find(items.data(), items.size_bytes(), size);
  if (known == nullptr) {
    const size_t capacity = CapacityFor(size, min_capacity);
    const size_t place = Reserve(capacity * sizeof(T));
    if (fits()) {
      std::byte* const at = staging_.data() + place;
      if (!items.empty()) std::memcpy(at, items.data(), items.size_bytes());
      for (size_t i = items.size(); i < size; ++i)
        std::memcpy(at + i * sizeof(T), &fill, sizeof(T));
    }
    known = &known_.emplace_back(Known{items.data(), items.size_bytes(), size, place, capacity});
  }
  return reinterpret_cast<const T*>(device_ + known->place);
}

}  // namespace lorad::kernels::cuda

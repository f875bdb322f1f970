// What a Runtime gives out, freed with its owner: device memory, pinned host memory, events. The
// runtime outlives them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/runtime.h"

namespace lorad::kernels::cuda {

template <absl::StatusOr<void*> (Runtime::*kAllocate)(size_t), void (Runtime::*kFree)(void*)>
class OwnedMemory {
 public:
  OwnedMemory() = default;  // none
  OwnedMemory(OwnedMemory&& other) noexcept { *this = std::move(other); }
  OwnedMemory& operator=(OwnedMemory&& other) noexcept {
    std::swap(runtime_, other.runtime_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~OwnedMemory() {
    if (data_ != nullptr) (runtime_->*kFree)(data_);
  }

  static absl::StatusOr<OwnedMemory> Allocate(Runtime& runtime, size_t bytes) {
    auto data = (runtime.*kAllocate)(bytes);
    if (!data.ok()) return data.status();
    OwnedMemory memory;
    memory.runtime_ = &runtime;
    memory.data_ = *data;
    memory.bytes_ = bytes;
    return memory;
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  size_t bytes() const { return bytes_; }
  std::span<std::byte> span() const { return {data(), bytes_}; }

 private:
  Runtime* runtime_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

using DeviceMemory = OwnedMemory<&Runtime::AllocateDevice, &Runtime::FreeDevice>;
using PinnedMemory = OwnedMemory<&Runtime::AllocateHost, &Runtime::FreeHost>;

class OwnedEvent {
 public:
  OwnedEvent() = default;  // none
  explicit OwnedEvent(Runtime& runtime) : runtime_(&runtime), event_(runtime.NewEvent()) {}
  OwnedEvent(OwnedEvent&& other) noexcept { *this = std::move(other); }
  OwnedEvent& operator=(OwnedEvent&& other) noexcept {
    std::swap(runtime_, other.runtime_);
    std::swap(event_, other.event_);
    return *this;
  }
  ~OwnedEvent() {
    if (runtime_ != nullptr) runtime_->FreeEvent(event_);
  }
  Event get() const { return event_; }

 private:
  Runtime* runtime_ = nullptr;
  Event event_;
};

// Device memory whose contents need not outlive a program: it grows between programs. Graphs hold
// its address, so it grows in powers of two.
class Scratch {
 public:
  // Whether it has so many bytes now; if not, wanted() is true until Grow.
  bool Has(size_t bytes) {
    if (bytes > memory_.bytes()) wanted_ = std::max(wanted_, bytes);
    return bytes <= memory_.bytes();
  }
  void* data() const { return memory_.data(); }
  bool wanted() const { return wanted_ > 0; }
  absl::Status Grow(Runtime& runtime);

 private:
  DeviceMemory memory_;
  size_t wanted_ = 0;
};

}  // namespace lorad::kernels::cuda

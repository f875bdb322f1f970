// Runtime: one device, its memory, streams, events and graphs. Two implementations: the CUDA
// runtime (device_runtime.cc) and the emulated one of the tests (tests/emulator/runtime.h), where
// memory is the host's, streams run late and in any order that events allow, and a kernel is a loop
// over threads.
//
// Errors of a device are sticky: work that is queued returns nothing, the first failure stays in
// status() and in every later Synchronize.
//
// Thread: any. Two threads must not use one stream at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"

namespace lorad::kernels::cuda {

struct DeviceFacts {
  int index = 0;               // its number
  std::string name;            // "NVIDIA H100 80GB HBM3"
  int compute_capability = 0;  // 90 for 9.0
  int multiprocessors = 0;
  size_t memory_bytes = 0;
  size_t shared_bytes_per_block = 0;  // with opt-in
  int max_threads_per_block = 1024;
  int max_grid_y = 65535;
};

struct Stream {
  int id = 0;
};
struct Event {
  int id = -1;  // none
};
struct Graph {
  int id = -1;  // none
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual const DeviceFacts& facts() const = 0;
  // The first error of this device, kept.
  virtual absl::Status status() const = 0;
  // An error of a library that works on this device: kept like the device's own.
  virtual void Fail(const absl::Status& status) = 0;
  virtual size_t FreeBytes() const = 0;  // of device memory, now

  // Device memory, zeroed, 256-byte aligned at least. ResourceExhausted.
  virtual absl::StatusOr<void*> AllocateDevice(size_t bytes) = 0;
  virtual void FreeDevice(void* memory) = 0;  // waits for all work
  // Host memory that copies of any device may read and write while the caller goes on (pinned).
  // ResourceExhausted.
  virtual absl::StatusOr<void*> AllocateHost(size_t bytes) = 0;
  virtual void FreeHost(void* memory) = 0;

  // Streams live as long as the runtime.
  virtual Stream NewStream(bool high_priority) = 0;
  // Between any two of host (AllocateHost's) and device. In the stream's order.
  virtual void Copy(Stream stream, void* to, const void* from, size_t bytes) = 0;
  virtual void Fill(Stream stream, void* to, uint8_t byte, size_t bytes) = 0;
  virtual void Launch(Stream stream, const KernelRef& kernel, const Grid& grid,
                      const void* args) = 0;

  virtual Event NewEvent() = 0;
  virtual void FreeEvent(Event event) = 0;
  virtual void Record(Event event, Stream stream) = 0;
  // Later work of the stream starts after what the event last recorded. An event that was never
  // recorded is in the past.
  virtual void Wait(Stream stream, Event event) = 0;
  virtual bool IsDone(Event event) = 0;  // of a device that failed: true
  virtual absl::Status Synchronize(Event event) = 0;
  virtual absl::Status Synchronize(Stream stream) = 0;
  // An event that also notes the time, and what lies between two of them that are done.
  virtual Event NewTimingEvent() = 0;
  virtual float MillisecondsBetween(Event from, Event to) = 0;

  // For libraries: the cudaStream_t. In an emulation the stream's number.
  virtual void* NativeStream(Stream stream) = 0;

  // What is queued on the stream, and on streams that wait for its events, between the two calls is
  // recorded instead of run. Every other stream must have been joined by EndCapture, which returns
  // an error that does not stay if it cannot make a graph. In between, this thread must not
  // allocate, free, wait or ask IsDone.
  virtual void BeginCapture(Stream stream) = 0;
  virtual absl::StatusOr<Graph> EndCapture(Stream stream) = 0;
  virtual void LaunchGraph(Stream stream, Graph graph) = 0;
  virtual void FreeGraph(Graph graph) = 0;  // not while it runs
};

// Launches straight on a stream.
class StreamLauncher final : public Launcher {
 public:
  StreamLauncher(Runtime& runtime, Stream stream) : runtime_(runtime), stream_(stream) {}
  void Launch(const KernelRef& kernel, const Grid& grid, const void* args) override {
    runtime_.Launch(stream_, kernel, grid, args);
  }

 private:
  Runtime& runtime_;
  const Stream stream_;
};

// The device with this number. Unavailable: no driver or no such device (the message says which).
absl::StatusOr<std::unique_ptr<Runtime>> OpenDevice(int index);

}  // namespace lorad::kernels::cuda

// EmulatedRuntime: a device that exists in the host's memory only, made to show mistakes.
//
// - Streams run late: nothing runs before somebody waits for it (Synchronize, IsDone, FreeDevice).
//   Then work that is ready runs in an order drawn from a seed, so a missing Wait, or a pinned
//   buffer that is used again too early, shows as a wrong result under some seed.
// - Device memory crashes a host that touches it (device_memory.h); AllocateHost's is poisoned.
//   Copies must lie inside blocks of either. A kernel's argument that points to other memory of
//   the host ends the program.
// - While a thread captures, calls that CUDA forbids then (allocations, waiting, asking) end the
//   program, as does every other misuse. Memory, events and graphs must be freed before the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/work.h"

namespace lorad::emulator {

// Few multiprocessors, so that grids are small and persistent kernels take more than one turn.
kernels::cuda::DeviceFacts EmulatedDevice();

struct RuntimeOptions {
  kernels::cuda::DeviceFacts facts = EmulatedDevice();
  size_t host_bytes = size_t{1} << 30;  // that AllocateHost gives
  uint64_t order_seed = 1;
  int64_t fail_after =
      -1;  // so many copies, fills and launches run, then the device fails; -1: never
};

// What has run so far.
struct RuntimeCounts {
  int64_t copies = 0;
  int64_t fills = 0;
  int64_t launches = 0;        // of kernels, in graphs too
  int64_t graph_launches = 0;  // begun
  int64_t captures = 0;        // ended well
};

class EmulatedRuntime final : public kernels::cuda::Runtime {
 public:
  explicit EmulatedRuntime(const RuntimeOptions& options = {});
  ~EmulatedRuntime() override;

  RuntimeCounts counts() const;
  // As RuntimeOptions::fail_after, counted from now.
  void FailAfter(int64_t operations);

  const kernels::cuda::DeviceFacts& facts() const override;
  absl::Status status() const override;
  void Fail(const absl::Status& status) override;
  size_t FreeBytes() const override;
  absl::StatusOr<void*> AllocateDevice(size_t bytes) override;
  void FreeDevice(void* memory) override;
  absl::StatusOr<void*> AllocateHost(size_t bytes) override;
  void FreeHost(void* memory) override;
  kernels::cuda::Stream NewStream(bool high_priority) override;
  void Copy(kernels::cuda::Stream stream, void* to, const void* from, size_t bytes) override;
  void Fill(kernels::cuda::Stream stream, void* to, uint8_t byte, size_t bytes) override;
  void Launch(kernels::cuda::Stream stream, const kernels::cuda::KernelRef& kernel,
              const kernels::cuda::Grid& grid, const void* args) override;
  kernels::cuda::Event NewEvent() override;
  void FreeEvent(kernels::cuda::Event event) override;
  void Record(kernels::cuda::Event event, kernels::cuda::Stream stream) override;
  void Wait(kernels::cuda::Stream stream, kernels::cuda::Event event) override;
  bool IsDone(kernels::cuda::Event event) override;
  absl::Status Synchronize(kernels::cuda::Event event) override;
  absl::Status Synchronize(kernels::cuda::Stream stream) override;
  kernels::cuda::Event NewTimingEvent() override;
  float MillisecondsBetween(kernels::cuda::Event from, kernels::cuda::Event to) override;
  void* NativeStream(kernels::cuda::Stream stream) override {
    return reinterpret_cast<void*>(static_cast<intptr_t>(stream.id));
  }
  void BeginCapture(kernels::cuda::Stream stream) override;
  absl::StatusOr<kernels::cuda::Graph> EndCapture(kernels::cuda::Stream stream) override;
  void LaunchGraph(kernels::cuda::Stream stream, kernels::cuda::Graph graph) override;
  void FreeGraph(kernels::cuda::Graph graph) override;

 private:
  // One entry of a stream's queue.
  struct Entry {
    enum class Kind { kWork, kRecord, kWait, kGraph };
    Kind kind = Kind::kWork;
    Work work;
    uint64_t mark = 0;    // of a record, or what a wait waits for
    bool timing = false;  // a record that notes the time
    int graph = -1;
    std::optional<GraphRun> run;  // of the graph, once it has begun
  };
  struct StreamState {
    std::deque<Entry> queue;
    int capture = -1;        // that it takes part in
    std::vector<int> tails;  // the nodes of that capture which its next node comes after
  };
  struct EventState {
    bool timing = false;
    uint64_t mark = 0;  // of the last record; 0: none
    int capture = -1;   // recorded in a capture
    std::vector<int> tails;
  };
  struct Capture {
    int origin = 0;
    std::thread::id thread;
    WorkGraph graph;
  };

  StreamState& At(kernels::cuda::Stream stream);
  EventState& At(kernels::cuda::Event event);
  void CheckBlock(const void* at, size_t bytes, const char* what) const;
  void CheckArgs(const Work& work) const;
  void CheckNotCapturing(const char* call) const;
  void Add(kernels::cuda::Stream stream, Work work);
  void Run(const Work& work);
  // Runs one piece of work that is ready. False: there is none.
  bool Step(const std::vector<int>& ranks);
  bool IsReady(const Entry& entry) const;
  void RunHead(StreamState& stream);
  template <typename Condition>
  void RunUntil(Condition condition);

  mutable std::mutex mutex_;
  RuntimeOptions options_;
  absl::Status status_;
  RuntimeCounts counts_;
  std::mt19937_64 random_;
  DeviceMemory device_;
  std::map<const std::byte*, size_t> host_;  // this runtime's own
  size_t host_used_ = 0;
  std::deque<StreamState> streams_;  // stream i is number i + 1
  std::map<int, EventState> events_;
  std::map<int, WorkGraph> graphs_;
  std::map<int, Capture> captures_;
  std::set<uint64_t> pending_;         // marks that are queued
  std::map<uint64_t, int64_t> times_;  // of marks of timing events
  int64_t clock_ = 0;                  // goes on by a microsecond with each piece of work
  uint64_t last_mark_ = 0;
  int last_event_ = -1;
  int last_graph_ = -1;
  int last_capture_ = -1;
};

}  // namespace lorad::emulator

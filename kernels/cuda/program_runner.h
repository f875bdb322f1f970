// ProgramRunner: gives programs to the compute stream, one a step. It owns what that takes: the
// blocks that lists travel in, the graphs of programs that come again, the events that say that a
// step is over.
//
// The host prepares step n + 1 while n runs: the staging blocks are a ring, and the device's block
// is overwritten in the order of the stream.
//
// Thread: the engine's; last_step and WaitFor any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/graph_cache.h"
#include "kernels/cuda/program.h"
#include "kernels/cuda/runtime.h"

namespace lorad::kernels::cuda {

struct ProgramRunnerOptions {
  size_t list_bytes = size_t{4} << 20;  // at first
  size_t graphs = 64;                   // kept; 0: every program runs launch by launch
};

class ProgramRunner {
 public:
  using Options = ProgramRunnerOptions;
  struct Counts {
    uint64_t eager = 0;  // programs run launch by launch
    uint64_t captured = 0;
    uint64_t replayed = 0;  // the first time after the capture included
  };

  // REQUIRES: `runtime` outlives it. ResourceExhausted.
  static absl::StatusOr<std::unique_ptr<ProgramRunner>> Create(Runtime& runtime,
                                                               const Options& options);
  ~ProgramRunner();  // waits for all steps

  Stream compute() const { return compute_; }

  // An empty program to record into. Waits while its staging block is on its way.
  Program& Begin();
  // For a program that does not fit: gives lists the room that it wanted. Record it anew then.
  absl::Status Grow();
  // Queues the program of the last Begin as one step; `replayable`: it is likely to come again.
  void Run(bool replayable);
  // What was queued on the compute stream directly becomes a step of its own.
  void MarkStep();

  uint64_t last_step() const { return last_step_.load(std::memory_order_acquire); }
  // What is queued on `stream` from now on starts after all steps up to this one.
  void WaitFor(Stream stream, uint64_t step);
  // Until all steps up to this one are over.
  absl::Status AwaitStep(uint64_t step);

  const Counts& counts() const { return counts_; }

 private:
  struct Block {
    PinnedMemory staging;
    OwnedEvent uploaded;
  };
  static constexpr size_t kBlocks = 3;
  static constexpr size_t kStepEvents = 64;

  ProgramRunner(Runtime& runtime, const Options& options);
  absl::Status AllocateLists(size_t bytes);
  void Replay();
  void Issue();

  Runtime& runtime_;
  const Options options_;
  const Stream compute_;
  const Stream side_;
  OwnedEvent fork_;
  OwnedEvent join_;
  std::array<Block, kBlocks> blocks_;
  size_t next_block_ = 0;
  DeviceMemory lists_;
  Program program_;
  GraphCache graphs_;
  Counts counts_;

  // Step s is recorded in event s % kStepEvents: whoever waits for an older step waits for a later
  // one in its place, which is queued already.
  std::mutex steps_mutex_;
  std::array<OwnedEvent, kStepEvents> step_events_;
  std::atomic<uint64_t> last_step_ = 0;
};

}  // namespace lorad::kernels::cuda

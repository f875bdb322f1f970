#include "kernels/cuda/program_runner.h"

#include <bit>

#include "memory/base/check.h"
#include "memory/base/status_macros.h"

namespace lorad::kernels::cuda {

absl::StatusOr<std::unique_ptr<ProgramRunner>> ProgramRunner::Create(Runtime& runtime,
                                                                     const Options& options) {
  std::unique_ptr<ProgramRunner> runner(new ProgramRunner(runtime, options));
  LORAD_RETURN_IF_ERROR(runner->AllocateLists(options.list_bytes));
  return runner;
}

ProgramRunner::ProgramRunner(Runtime& runtime, const Options& options)
    : runtime_(runtime),
      options_(options),
      compute_(runtime.NewStream(/*high_priority=*/false)),
      side_(runtime.NewStream(/*high_priority=*/true)),
      fork_(runtime),
      join_(runtime),
      graphs_(runtime, options.graphs) {
  for (Block& block : blocks_) block.uploaded = OwnedEvent(runtime);
  for (OwnedEvent& event : step_events_) event = OwnedEvent(runtime);
}

ProgramRunner::~ProgramRunner() { runtime_.Synchronize(compute_).IgnoreError(); }

absl::Status ProgramRunner::AllocateLists(size_t bytes) {
  LORAD_RETURN_IF_ERROR(runtime_.Synchronize(compute_));
  lists_ = {};
  LORAD_ASSIGN_OR_RETURN(lists_, DeviceMemory::Allocate(runtime_, bytes));
  for (Block& block : blocks_) {
    block.staging = {};
    LORAD_ASSIGN_OR_RETURN(block.staging, PinnedMemory::Allocate(runtime_, bytes));
  }
  return absl::OkStatus();
}

Program& ProgramRunner::Begin() {
  Block& block = blocks_[next_block_];
  runtime_.Synchronize(block.uploaded.get()).IgnoreError();  // stays in runtime_.status()
  program_.Begin(block.staging.span(), lists_.data());
  return program_;
}

absl::Status ProgramRunner::Grow() {
  return program_.fits() ? absl::OkStatus() : AllocateLists(std::bit_ceil(program_.list_bytes()));
}

void ProgramRunner::Run(bool replayable) {
  LORAD_CHECK(program_.fits());
  if (program_.list_bytes() > 0) {
    Block& block = blocks_[next_block_];
    next_block_ = (next_block_ + 1) % kBlocks;
    runtime_.Copy(compute_, lists_.data(), block.staging.data(), program_.list_bytes());
    runtime_.Record(block.uploaded.get(), compute_);
  }
  if (replayable && options_.graphs > 0 && !program_.has_waits()) {
    Replay();
  } else {
    Issue();
    ++counts_.eager;
  }
  MarkStep();
}

void ProgramRunner::Issue() { program_.Issue(runtime_, compute_, side_, fork_.get(), join_.get()); }

void ProgramRunner::Replay() {
  const uint64_t hash = HashBytes(program_.key());
  GraphCache::Entry* entry = graphs_.Find(program_.key(), hash);
  // What comes once is not worth a capture; and what a library has to try out is tried out then.
  if (entry == nullptr && graphs_.SeenBefore(hash)) {
    runtime_.BeginCapture(compute_);
    Issue();
    if (const auto graph = runtime_.EndCapture(compute_); graph.ok()) {
      ++counts_.captured;
      entry = graphs_.Add(program_.key(), hash, *graph,
                          [this](uint64_t step) { AwaitStep(step).IgnoreError(); });
    }
  }
  if (entry == nullptr) {
    Issue();
    ++counts_.eager;
    return;
  }
  runtime_.LaunchGraph(compute_, entry->graph);
  entry->last_step = last_step() + 1;
  ++counts_.replayed;
}

void ProgramRunner::MarkStep() {
  std::lock_guard lock(steps_mutex_);
  const uint64_t step = last_step_.load(std::memory_order_relaxed) + 1;
  runtime_.Record(step_events_[step % kStepEvents].get(), compute_);
  last_step_.store(step, std::memory_order_release);
}

void ProgramRunner::WaitFor(Stream stream, uint64_t step) {
  std::lock_guard lock(steps_mutex_);
  LORAD_CHECK(step <= last_step_.load(std::memory_order_relaxed));
  if (step > 0) runtime_.Wait(stream, step_events_[step % kStepEvents].get());
}

absl::Status ProgramRunner::AwaitStep(uint64_t step) {
  return runtime_.Synchronize(step_events_[step % kStepEvents].get());
}

}  // namespace lorad::kernels::cuda

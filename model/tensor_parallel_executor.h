// TensorParallelExecutor: an Executor over several ranks, each of which computes its share of the
// model (model/shard.h) with its own backend, weights and pool. Every rank runs every step: it gets
// the same input, page numbers and all, and exchanges activations with the others through its
// communicator. Rank 0 runs on the caller's thread, the others on threads of this object.
//
// A rank that fails fails the step, and the group for good: its communicators are aborted so that
// no rank waits for it.
//
// Thread: the engine's only.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/communicator.h"
#include "model/decoder_executor.h"
#include "model/executor.h"

namespace lorad {

class TensorParallelExecutor final : public Executor {
 public:
  // By rank; the executors are those of the communicators' ranks.
  struct Ranks {
    std::vector<std::unique_ptr<kernels::Communicator>> communicators;
    std::vector<std::unique_ptr<DecoderExecutor>> executors;
  };
  explicit TensorParallelExecutor(Ranks ranks);
  ~TensorParallelExecutor() override;

  // Rank 0's results. The error is that of the rank that failed first of its own accord.
  absl::Status Submit(const StepInput& input) override;
  absl::Status Collect(std::vector<SequenceResult>* results) override;
  bool Overlaps() const override { return ranks_.executors[0]->Overlaps(); }
  bool CanDraw(const SamplingParams& params) const override {
    return ranks_.executors[0]->CanDraw(params);
  }
  void PoisonPages(std::span<const uint32_t> pages) override;
  // As DecoderExecutor's.  REQUIRES: no rank failed.
  std::vector<float> AllLogits(const StepInput& input);

  // Of all ranks.
  size_t weight_bytes() const;
  size_t activation_bytes() const;

 private:
  using RankFn = std::function<absl::Status(int rank)>;

  // Runs fn(rank) for every rank at the same time.
  absl::Status OnEveryRank(const RankFn& fn);
  void RunRank(int rank, const RankFn& fn);
  void Work(int rank);
  int size() const { return static_cast<int>(ranks_.executors.size()); }

  const Ranks ranks_;
  std::vector<std::vector<SequenceResult>> other_results_;  // by rank: empty ones

  std::mutex mutex_;
  std::condition_variable begun_, ended_;
  // Guarded by mutex_.
  const RankFn* job_ = nullptr;
  uint64_t jobs_ = 0;  // begun
  int running_ = 0;    // threads that are not through with the last one
  bool stopping_ = false;
  std::vector<absl::Status> statuses_;  // of the last job, by rank
  std::vector<std::thread> threads_;    // of ranks 1 ..
};

}  // namespace lorad

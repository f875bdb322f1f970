#include "model/tensor_parallel_executor.h"

#include <string>
#include <utility>

#include "fmt/format.h"
#include "memory/base/check.h"

namespace lorad {

TensorParallelExecutor::TensorParallelExecutor(Ranks ranks)
    : ranks_(std::move(ranks)),
      other_results_(ranks_.executors.size()),
      statuses_(ranks_.executors.size()) {
  LORAD_CHECK(size() >= 1 && ranks_.communicators.size() == ranks_.executors.size());
  for (int rank = 0; rank < size(); ++rank) {
    const kernels::Communicator& self = *ranks_.communicators[static_cast<size_t>(rank)];
    LORAD_CHECK(self.rank() == rank && self.size() == size());
    if (rank > 0) threads_.emplace_back([this, rank] { Work(rank); });
  }
}

TensorParallelExecutor::~TensorParallelExecutor() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  begun_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status TensorParallelExecutor::Submit(const StepInput& input) {
  return OnEveryRank(
      [&](int rank) { return ranks_.executors[static_cast<size_t>(rank)]->Submit(input); });
}

absl::Status TensorParallelExecutor::Collect(std::vector<SequenceResult>* results) {
  return OnEveryRank([&](int rank) {
    const auto r = static_cast<size_t>(rank);
    return ranks_.executors[r]->Collect(rank == 0 ? results : &other_results_[r]);
  });
}

void TensorParallelExecutor::PoisonPages(std::span<const uint32_t> pages) {
  for (const auto& executor : ranks_.executors) executor->PoisonPages(pages);
}

std::vector<float> TensorParallelExecutor::AllLogits(const StepInput& input) {
  std::vector<float> logits;
  const absl::Status status = OnEveryRank([&](int rank) {
    std::vector<float> own = ranks_.executors[static_cast<size_t>(rank)]->AllLogits(input);
    if (rank == 0) logits = std::move(own);
    return ranks_.communicators[static_cast<size_t>(rank)]->status();
  });
  LORAD_CHECK(status.ok());
  return logits;
}

size_t TensorParallelExecutor::weight_bytes() const {
  size_t bytes = 0;
  for (const auto& executor : ranks_.executors) bytes += executor->weight_bytes();
  return bytes;
}

size_t TensorParallelExecutor::activation_bytes() const {
  size_t bytes = 0;
  for (const auto& executor : ranks_.executors) bytes += executor->activation_bytes();
  return bytes;
}

absl::Status TensorParallelExecutor::OnEveryRank(const RankFn& fn) {
  {
    const std::lock_guard lock(mutex_);
    job_ = &fn;
    ++jobs_;
    running_ = static_cast<int>(threads_.size());
  }
  begun_.notify_all();
  RunRank(0, fn);
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return running_ == 0; });
  // A rank that was only sent home says less than the one that failed.
  int worst = -1;
  for (int rank = 0; rank < size(); ++rank) {
    const absl::Status& status = statuses_[static_cast<size_t>(rank)];
    if (status.ok()) continue;
    if (worst < 0 || absl::IsAborted(statuses_[static_cast<size_t>(worst)])) worst = rank;
  }
  if (worst < 0) return absl::OkStatus();
  const absl::Status& status = statuses_[static_cast<size_t>(worst)];
  return absl::Status(status.code(),
                      fmt::format("rank {}: {}", worst, std::string(status.message())));
}

void TensorParallelExecutor::RunRank(int rank, const RankFn& fn) {
  absl::Status status = fn(rank);
  if (!status.ok()) ranks_.communicators[static_cast<size_t>(rank)]->Abort();
  const std::lock_guard lock(mutex_);
  statuses_[static_cast<size_t>(rank)] = std::move(status);
}

void TensorParallelExecutor::Work(int rank) {
  uint64_t done = 0;  // jobs
  for (;;) {
    const RankFn* job = nullptr;
    {
      std::unique_lock lock(mutex_);
      begun_.wait(lock, [&] { return stopping_ || jobs_ > done; });
      if (stopping_) return;
      job = job_;
      ++done;
    }
    RunRank(rank, *job);
    {
      const std::lock_guard lock(mutex_);
      if (--running_ > 0) continue;
    }
    ended_.notify_one();
  }
}

}  // namespace lorad

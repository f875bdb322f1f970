#include "tests/simulation/invariants.h"

#include <fmt/format.h>

namespace lorad::sim {
namespace {

constexpr int kIdleSteps = 3;  // a step that refuses or that fails a load runs nothing either

absl::Status Broken(std::string what) { return absl::InternalError(what); }

}  // namespace

Invariants::Invariants(const SchedulerPolicy& policy, const UnifiedPool* pool, int longest_request)
    : policy_(policy),
      pool_(pool),
      most_still_(static_cast<uint64_t>(policy.max_sequences) *
                  static_cast<uint64_t>(longest_request) *
                  (static_cast<uint64_t>(policy.max_preemptions) + 2)) {}

absl::Status Invariants::Check(const AfterStep& after, const SimulatedExecutor& executor) {
  if (executor.steps() != checked_steps_) {
    checked_steps_ = executor.steps();
    const StepFacts& step = executor.last_step();
    if (step.rows > policy_.max_step_tokens || step.sequences > policy_.max_sequences ||
        step.longest_chunk > policy_.max_chunk_tokens) {
      return Broken(fmt::format("I1: a step of {} tokens, {} sequences and a chunk of {}",
                                step.rows, step.sequences, step.longest_chunk));
    }
    if (policy_.max_adapter_bytes > 0 && step.adapters > 1 &&
        step.adapter_bytes > policy_.max_adapter_bytes) {
      return Broken(fmt::format("I1: a step of {} adapters with {} bytes", step.adapters,
                                step.adapter_bytes));
    }
    if (!executor.fault().empty()) return Broken("I2: " + executor.fault());
  }
  const UnifiedPool::States s = pool_->states();
  if (s.free + s.kv + s.kv_cached + s.adapter + s.loading != s.total) {
    return Broken(
        fmt::format("I2: {} free, {} kv, {} cached, {} adapter and {} loading of {} pages", s.free,
                    s.kv, s.kv_cached, s.adapter, s.loading, s.total));
  }
  const bool idles = !after.ran && !after.loads && !after.slow_readers && after.unfinished > 0;
  idle_ = idles ? idle_ + 1 : 0;
  if (idle_ >= kIdleSteps) {
    return Broken(fmt::format("I4: {} requests, and nothing runs or loads", after.unfinished));
  }
  const bool moves = after.waiting == 0 || after.slow_readers || after.moves != moves_;
  moves_ = after.moves;
  still_ = moves ? 0 : still_ + (after.ran ? 1 : 0);
  if (most_still_ > 0 && still_ > most_still_) {
    return Broken(fmt::format("I5: {} requests wait, and in {} steps nobody is admitted or ends",
                              after.waiting, still_));
  }
  return absl::OkStatus();
}

absl::Status Invariants::CheckDrained() const {
  const UnifiedPool::States s = pool_->states();
  const AdapterCache::Stats adapters = pool_->adapters().stats();
  if (s.kv == 0 && s.loading == 0 && adapters.leased == 0) return absl::OkStatus();
  return Broken(
      fmt::format("I2: with no request left {} pages are sequences', {} are being loaded "
                  "and {} adapters are in use",
                  s.kv, s.loading, adapters.leased));
}

}  // namespace lorad::sim

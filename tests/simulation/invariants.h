// Invariants: what must hold after every step of a server, whatever the load. Numbers are those of
// the scheduler's research notes:
//   I1  no step exceeds a budget: tokens, sequences, chunk, distinct adapters' bytes
//   I2  every page is in one state, and no page holds what it must not (the executor looks);
//       after the last request none is a sequence's and no adapter is in use
//   I3  an accepted request ends, exactly once (SimulatedServer)
//   I4  progress: if requests wait, something runs or loads
//   I9  output is what it would have been without preemption, chunks and shared pages, and nobody
//       is preempted where all outputs have room (SimulatedServer)
//   I14 all of this however many clients leave
// Fairness and bounds on waiting are measured (fairness_meter.h, measurements.h) and asserted by
// tests, because their bounds depend on the workload.
//
// Thread: the simulation's only.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "memory/unified_pool.h"
#include "scheduler/planner.h"
#include "tests/simulation/simulated_executor.h"

namespace lorad::sim {

class Invariants {
 public:
  Invariants(const SchedulerPolicy& policy, const UnifiedPool* pool)
      : policy_(policy), pool_(pool) {}

  // What a server knows after one call of Engine::Step. An error names the invariant.
  struct AfterStep {
    bool ran = false;    // a step was submitted or collected
    bool loads = false;  // adapters are on their way
    int unfinished = 0;
  };
  absl::Status Check(const AfterStep& after, const SimulatedExecutor& executor);
  // When every request has ended.
  absl::Status CheckDrained() const;

 private:
  const SchedulerPolicy policy_;
  const UnifiedPool* const pool_;
  uint64_t checked_steps_ = 0;
  int idle_ = 0;  // steps in a row that ran nothing although something waits
};

}  // namespace lorad::sim
